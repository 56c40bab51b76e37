// A map-style dataset and what a loader makes of it.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/nested/tensor.h"

namespace athanor {

// One collated batch. `input` is N x …, `target` is N or N x …; both on the CPU as they leave the loader (pinned when
// asked). Samples of unequal sizes are `ragged`, without padding, and `input` is undefined then. Targets of unequal
// sizes, such as a label for each token, are `ragged_target`, and `target` is undefined then. Whatever else the model
// takes (a mask, token types, a second image) is in `more` by name, N x … each.
struct Batch {
  torch::Tensor input;
  torch::Tensor target;
  std::optional<NestedTensor> ragged;
  std::optional<NestedTensor> ragged_target;
  std::map<std::string, torch::Tensor> more;
  int64_t size = 0;  // samples in it; 0 = padding only: weight 0 in losses and metrics
};

// Thread-safe for reads: loader threads call Get() at once.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  // The collated batch of these samples, in this order. DATA_LOSS names the sample that is damaged.
  virtual absl::StatusOr<Batch> Get(const std::vector<int64_t>& indices) const = 0;
  // The same in a given pass: for datasets whose samples change from pass to pass (random crops). What it gives depends
  // on its arguments alone, so a resumed run sees what the uninterrupted one would have seen.
  virtual absl::StatusOr<Batch> GetInEpoch(const std::vector<int64_t>& indices, int64_t /*epoch*/) const {
    return Get(indices);
  }
  // Whether a batch may come with fewer samples than were asked for (Batch::size tells). Where it may, the ranks of a
  // run tell each other at every update how much they counted; false saves them that, and a smaller batch is an error.
  virtual bool may_leave_out() const { return true; }
};

}  // namespace athanor
