// Where tensors are written to, one after the other. Internal to the module.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "athanor/exchange/convert.h"
#include "athanor/io/state_dict_stream.h"

namespace athanor {

// Begin(); Measure() of every tensor where that is asked for; Add() of every tensor; Finish(). In order. A tensor is
// contiguous, on the CPU, as it was described. Nothing that a reader would take for the whole is there before Finish().
class TensorSink {
 public:
  virtual ~TensorSink() = default;
  // Of tied weights only the first is given to Measure() and Add().
  virtual bool keeps_ties() const { return false; }
  virtual bool measures() const { return false; }
  virtual absl::Status Begin(const std::vector<StateDictEntry>& tensors) = 0;
  virtual absl::Status Measure(size_t /*index*/, const torch::Tensor& /*tensor*/) { return absl::OkStatus(); }
  virtual absl::Status Add(size_t index, const torch::Tensor& tensor) = 0;
  virtual absl::Status Finish() = 0;
};

std::unique_ptr<TensorSink> NewSafetensorsSink(const std::string& path);
// Shards of at most `max_shard_bytes`, but for a tensor that is larger.
std::unique_ptr<TensorSink> NewHuggingFaceSink(const std::string& folder, int64_t max_shard_bytes);
std::unique_ptr<TensorSink> NewTorchSaveSink(const std::string& path);
// `nested`: names are "model.<name>" and the like, which Python shall have as {"model": {name: …}}.
std::unique_ptr<TensorSink> NewTorchDistributedSink(const std::string& folder, bool nested);
// `origin`: what the checkpoint's meta says about where it is from.
std::unique_ptr<TensorSink> NewCheckpointSink(const std::string& root, int64_t step, const std::string& origin);

}  // namespace athanor
