// Opens what another machine has written. A network file system shows a new file late, or shorter at first: its clients
// keep what they know of a folder and of a file for a while (NFS: up to a minute, acdirmax).
//
//   ASSIGN_OR_RETURN(auto reader, AwaitObject(*store, "step-000000000120/shard-00001-of-00002.safetensors", bytes));
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "athanor/checkpoint/store/checkpoint_store.h"

namespace athanor {

struct AwaitOptions {
  absl::Duration patience = absl::Seconds(75);  // beyond acdirmax
  std::function<void()> waiting;                // called before each pause; optional
  std::function<void(absl::Duration)> pause;    // null: that time
};

// The object, once it is there with this many bytes. Between two looks it lists the object's folder, so that a client
// asks its server anew. After `patience`: NOT_FOUND, or DATA_LOSS where it has another size. Other errors at once.
absl::StatusOr<std::unique_ptr<StoreReader>> AwaitObject(const CheckpointStore& store, const std::string& name,
                                                         int64_t bytes, const AwaitOptions& options = {});

}  // namespace athanor
