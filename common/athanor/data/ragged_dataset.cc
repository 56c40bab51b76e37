#include "athanor/data/ragged_dataset.h"

#include "absl/strings/str_cat.h"
#include "athanor/tensor/pn_tensor.h"

namespace athanor {

absl::StatusOr<std::shared_ptr<RaggedDataset>> RaggedDataset::Make(std::vector<torch::Tensor> samples,
                                                                   torch::Tensor target, const NestedView& view) {
  if (samples.empty()) return absl::InvalidArgumentError("ragged dataset: no samples");
  for (size_t i = 0; i < samples.size(); ++i) {
    torch::Tensor& sample = samples[i];
    if (!sample.defined() || !sample.device().is_cpu())
      return absl::InvalidArgumentError(absl::StrCat("ragged dataset: sample ", i, " is not a tensor on the CPU"));
    if (sample.dim() != samples[0].dim() || sample.scalar_type() != samples[0].scalar_type()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "ragged dataset: sample ", i, " has ", sample.dim(), " dims of ", c10::toString(sample.scalar_type()),
          "; allowed: as the first, ", samples[0].dim(), " dims of ", c10::toString(samples[0].scalar_type())));
    }
    sample = sample.detach();
  }
  const auto count = static_cast<int64_t>(samples.size());
  if (target.defined() && (target.dim() == 0 || target.size(0) != count || !target.device().is_cpu())) {
    return absl::InvalidArgumentError(absl::StrCat("ragged dataset: ", count, " samples, but ",
                                                   target.dim() == 0 ? 1 : target.size(0),
                                                   " targets; allowed: as many of both, on the CPU"));
  }
  return std::shared_ptr<RaggedDataset>(
      new RaggedDataset(std::move(samples), target.defined() ? target.detach().contiguous() : torch::Tensor(), view));
}

absl::StatusOr<Batch> RaggedDataset::Get(const std::vector<int64_t>& indices) const {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> chosen;
  chosen.reserve(indices.size());
  for (const int64_t index : indices) {
    if (index < 0 || index >= size())
      return absl::OutOfRangeError(absl::StrCat("sample ", index, "; allowed: 0 to ", size(), " exclusive"));
    chosen.push_back(samples_[static_cast<size_t>(index)]);
  }
  NestedOptions options;
  static_cast<NestedView&>(options) = view_;
  Batch batch;
  batch.ragged = CollateNested(chosen, options);
  if (target_.defined()) batch.target = target_.index_select(0, torch::tensor(indices, torch::kInt64));
  batch.size = static_cast<int64_t>(indices.size());
  return batch;
}

}  // namespace athanor
