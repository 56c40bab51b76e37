// The samples of a dataset drawn with replacement, some more often than others, anew in each pass: PyTorch's
// WeightedRandomSampler.
//
//   ASSIGN_OR_RETURN(auto drawn, WeightedDataset::Make(dataset, weights, {.samples = 50000, .seed = 7}));
//
// What a pass draws depends on the weights, the seed and the number of the pass alone: the same in every run, on every
// rank and thread, also after a resume.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/data/dataset.h"

namespace athanor {

struct WeightedOptions {
  int64_t samples = 0;  // of a pass; 0: as many as the dataset has
  uint64_t seed = 0;
};

// As rare classes as frequent ones: 1 / (samples of the class) for each sample. `labels`: whole numbers from 0.
torch::Tensor BalancingWeights(const torch::Tensor& labels);

class WeightedDataset : public Dataset {
 public:
  // `weights`: one number a sample, in any proportion; 0: never. INVALID_ARGUMENT for another number of them, for
  // negative ones, for what is not finite and when all are 0.
  static absl::StatusOr<std::shared_ptr<WeightedDataset>> Make(std::shared_ptr<const Dataset> inner,
                                                               const torch::Tensor& weights,
                                                               const WeightedOptions& options = {});

  int64_t size() const override { return options_.samples; }
  absl::StatusOr<Batch> Get(const std::vector<int64_t>& indices) const override { return GetInEpoch(indices, 0); }
  // OUT_OF_RANGE names the index.
  absl::StatusOr<Batch> GetInEpoch(const std::vector<int64_t>& indices, int64_t epoch) const override;
  bool may_leave_out() const override { return inner_->may_leave_out(); }

 private:
  WeightedDataset(std::shared_ptr<const Dataset> inner, torch::Tensor chances, const WeightedOptions& options)
      : inner_(std::move(inner)), chances_(std::move(chances)), options_(options) {}
  std::shared_ptr<const std::vector<int64_t>> DrawsOf(int64_t epoch) const;

  const std::shared_ptr<const Dataset> inner_;
  const torch::Tensor chances_;  // cumulated, float64
  const WeightedOptions options_;
  mutable std::mutex mutex_;
  mutable int64_t epoch_ = -1;
  mutable std::shared_ptr<const std::vector<int64_t>> draws_;  // of epoch_
};

}  // namespace athanor
