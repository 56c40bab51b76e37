#include "athanor/data/weighted_dataset.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace athanor {

torch::Tensor BalancingWeights(const torch::Tensor& labels) {
  const torch::Tensor counts = torch::bincount(labels.flatten()).to(torch::kFloat64);
  return 1.0 / counts.index_select(0, labels.flatten());
}

absl::StatusOr<std::shared_ptr<WeightedDataset>> WeightedDataset::Make(std::shared_ptr<const Dataset> inner,
                                                                       const torch::Tensor& weights,
                                                                       const WeightedOptions& options) {
  const auto bad = [](auto&&... what) { return absl::InvalidArgumentError(absl::StrCat("sample weights: ", what...)); };
  if (weights.dim() != 1 || weights.size(0) != inner->size())
    return bad("found ", c10::str(weights.sizes()), "; allowed: [", inner->size(), "], one a sample");
  if (options.samples < 0) return bad("samples of a pass: found ", options.samples, "; allowed: integer >= 0");
  const torch::Tensor wide = weights.to(torch::kFloat64);
  const torch::Tensor wrong = torch::logical_or(wide < 0, wide.isfinite().logical_not()).nonzero();
  if (wrong.size(0) > 0) {
    const auto sample = wrong[0][0].item<int64_t>();
    return bad("found ", wide[sample].item<double>(), " for sample ", sample, "; allowed: finite numbers >= 0");
  }
  torch::Tensor chances = wide.cumsum(0);
  const auto total = chances[-1].item<double>();
  if (!(total > 0) || !std::isfinite(total)) return bad("they add up to ", total, "; allowed: a number > 0");
  WeightedOptions resolved = options;
  if (resolved.samples == 0) resolved.samples = inner->size();
  return std::shared_ptr<WeightedDataset>(new WeightedDataset(std::move(inner), std::move(chances), resolved));
}

std::shared_ptr<const std::vector<int64_t>> WeightedDataset::DrawsOf(int64_t epoch) const {
  const std::lock_guard lock(mutex_);
  if (draws_ == nullptr || epoch != epoch_) {
    const torch::NoGradGuard no_grad;
    at::Generator generator =
        at::detail::createCPUGenerator(options_.seed * 0x9e3779b97f4a7c15ull + static_cast<uint64_t>(epoch));
    const torch::Tensor points = torch::rand({options_.samples}, generator, torch::kFloat64) * chances_[-1];
    // `right`: a sample of weight 0 repeats the sum before it and is never the first one beyond a point.
    const torch::Tensor found = torch::searchsorted(chances_, points, /*out_int32=*/false, /*right=*/true);
    const torch::Tensor last = torch::searchsorted(chances_, chances_[-1]);  // a point may round up to the whole sum
    const torch::Tensor draws = torch::minimum(found, last);
    draws_ = std::make_shared<const std::vector<int64_t>>(draws.data_ptr<int64_t>(),
                                                          draws.data_ptr<int64_t>() + draws.numel());
    epoch_ = epoch;
  }
  return draws_;
}

absl::StatusOr<Batch> WeightedDataset::GetInEpoch(const std::vector<int64_t>& indices, int64_t epoch) const {
  const auto draws = DrawsOf(epoch);
  std::vector<int64_t> drawn;
  drawn.reserve(indices.size());
  for (const int64_t index : indices) {
    if (index < 0 || index >= options_.samples)
      return absl::OutOfRangeError(absl::StrCat("sample ", index, "; allowed: 0 to ", options_.samples, " exclusive"));
    drawn.push_back((*draws)[static_cast<size_t>(index)]);
  }
  return inner_->GetInEpoch(drawn, epoch);
}

}  // namespace athanor
