// Reads checkpoints of manifest format 1, which earlier versions wrote: tensors are whole, and only a checksum of each
// shard tells whether it is. Internal to the module.
#pragma once

#include "absl/status/status.h"
#include "athanor/checkpoint/slice_reader.h"
#include "athanor/checkpoint/training_state.h"

namespace athanor {

// Every shard whole, checked before anything is taken from it. DATA_LOSS names file and offset; errors of the store as
// they are.
absl::Status ReadFormat1(const ShardSource& source, int rank, RestoredState* restored);

}  // namespace athanor
