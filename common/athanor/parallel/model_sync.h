// What ranks that are to train one model do before: compare what they have made, and take over rank 0's values.
//
//   RETURN_IF_ERROR(CompareModels(*model, members));
//   RETURN_IF_ERROR(BroadcastFromMain(model->parameters(), members));
//
// Collective over the members; with one rank nothing happens. Threads: the training thread.
#pragma once

#include <torch/torch.h>

#include <vector>

#include "absl/status/status.h"
#include "athanor/parallel/membership.h"

namespace athanor {

// INVALID_ARGUMENT when the ranks' models differ in names, shapes or dtypes of parameters or buffers.
absl::Status CompareModels(const torch::nn::Module& module, const Membership& members);
// Rank 0's values, everywhere; of any strides.
absl::Status BroadcastFromMain(const std::vector<torch::Tensor>& tensors, const Membership& members);

}  // namespace athanor
