// Reads parts of a checkpoint's tensors, and only the blocks of its files that hold them. Nothing is believed that a
// checksum does not cover. Stateless.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/checkpoint/format/manifest.h"
#include "athanor/checkpoint/store/checkpoint_store.h"

namespace athanor {

// `units` of `doing` (a literal: "writing a checkpoint") are done. On the writer thread, or the one that reads.
using ProgressCallback = std::function<void(const char* doing, int64_t units)>;

// Where a manifest's shards are, and who hears of bytes read.
struct ShardSource {
  const CheckpointStore& store;
  std::string folder;  // of the checkpoint: "step-000000000120/"
  const Manifest& manifest;
  ProgressCallback on_bytes;  // optional
  // What an error of the store says about the checkpoint; optional: the error itself.
  std::function<absl::Status(const absl::Status& error)> judge;

  absl::Status Judge(const absl::Status& error) const {
    if (absl::IsOutOfRange(error)) return absl::DataLossError(error.message());
    return error.ok() || judge == nullptr ? error : judge(error);
  }
};

// Parts of `tensors` (the manifest's, or a rank's own), in the order of `wanted`: on the CPU, contiguous. DATA_LOSS
// names file, offset and tensor. Errors of the store as they are judged.
absl::StatusOr<std::vector<torch::Tensor>> ReadBoxes(const ShardSource& source, const StoredTensors& tensors,
                                                     const std::vector<WantedBox>& wanted);

// All of them, by name. Names of one and the same tensor (tied weights) come back as one tensor.
absl::StatusOr<std::map<std::string, torch::Tensor>> ReadTensors(const ShardSource& source,
                                                                 const StoredTensors& tensors);

}  // namespace athanor
