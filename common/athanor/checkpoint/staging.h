// One rank's part of a checkpoint in host memory, laid out as the file will be. The memory is kept between saves, so
// that a save costs training one copy and no allocation. Not thread-safe: filled by the training thread, read by the
// writer while it is lent.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "athanor/checkpoint/shard_header.h"
#include "athanor/checkpoint/training_state.h"
#include "athanor/io/tensor_file.h"

namespace athanor {

// Rank that writes each replicated tensor: the largest first, always to the rank with the least bytes; equal on every
// rank. Names of one tensor (tied weights) are of one rank.
std::map<std::string, int> AssignTensors(const TensorMap& replicated, int world_size);

class StagedShard {
 public:
  // Copies the rank's tensors. INVALID_ARGUMENT for an undefined, sparse or unstorable tensor.
  absl::Status Fill(const TrainingState& state, int rank, int world_size,
                    std::optional<torch::ScalarType> export_dtype);
  // Computes checksums and makes the header; the writer's part of the work.
  absl::Status Seal();
  const std::string& header() const { return header_; }  // after Seal()
  const char* data() const { return arena_.get(); }
  int64_t data_bytes() const { return data_bytes_; }
  const std::map<std::string, int>& assignment() const { return assignment_; }

 private:
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  absl::Status Reserve(int64_t bytes);
  std::vector<ShardTensor> tensors_;
  std::string rank_meta_, header_;
  std::unique_ptr<char[], Free> arena_;
  int64_t capacity_ = 0;
  int64_t data_bytes_ = 0;
  std::map<std::string, int> assignment_;
};

}  // namespace athanor
