#include "athanor/data/ragged_dataset.h"

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/nested/pn_tensor.h"

namespace athanor {

namespace {

// Detaches them. `what`: sample or target.
absl::Status CheckAlike(std::vector<torch::Tensor>* tensors, const char* what) {
  for (size_t i = 0; i < tensors->size(); ++i) {
    torch::Tensor& one = (*tensors)[i];
    const torch::Tensor& first = tensors->front();
    if (!one.defined() || !one.device().is_cpu())
      return absl::InvalidArgumentError(absl::StrCat("ragged dataset: ", what, " ", i, " is not a tensor on the CPU"));
    if (one.dim() != first.dim() || one.scalar_type() != first.scalar_type()) {
      return absl::InvalidArgumentError(absl::StrCat("ragged dataset: ", what, " ", i, " has ", one.dim(), " dims of ",
                                                     c10::toString(one.scalar_type()), "; allowed: as the first, ",
                                                     first.dim(), " dims of ", c10::toString(first.scalar_type())));
    }
    one = one.detach();
  }
  return absl::OkStatus();
}

absl::Status CheckCount(int64_t samples, int64_t targets) {
  if (samples == targets) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("ragged dataset: ", samples, " samples, but ", targets,
                                                 " targets; allowed: as many of both, on the CPU"));
}

NestedTensor Chosen(const std::vector<torch::Tensor>& all, const std::vector<int64_t>& indices,
                    const NestedView& view) {
  std::vector<torch::Tensor> chosen;
  chosen.reserve(indices.size());
  for (const int64_t index : indices) chosen.push_back(all[static_cast<size_t>(index)]);
  NestedOptions options;
  static_cast<NestedView&>(options) = view;
  return CollateNested(chosen, options);
}

}  // namespace

absl::StatusOr<std::shared_ptr<RaggedDataset>> RaggedDataset::Make(std::vector<torch::Tensor> samples,
                                                                   torch::Tensor target, const NestedView& view) {
  ASSIGN_OR_RETURN(auto made, MakeWithRaggedTargets(std::move(samples), {}, view));
  if (!target.defined()) return made;
  RETURN_IF_ERROR(CheckCount(made->size(), target.dim() == 0 || !target.device().is_cpu() ? 1 : target.size(0)));
  made->target_ = target.detach().contiguous();
  return made;
}

absl::StatusOr<std::shared_ptr<RaggedDataset>> RaggedDataset::MakeWithRaggedTargets(std::vector<torch::Tensor> samples,
                                                                                    std::vector<torch::Tensor> targets,
                                                                                    const NestedView& view,
                                                                                    const NestedView& target_view) {
  if (samples.empty()) return absl::InvalidArgumentError("ragged dataset: no samples");
  RETURN_IF_ERROR(CheckAlike(&samples, "sample"));
  std::shared_ptr<RaggedDataset> made(new RaggedDataset(std::move(samples)));
  made->view_ = view;
  made->target_view_ = target_view;
  if (targets.empty()) return made;
  RETURN_IF_ERROR(CheckCount(made->size(), static_cast<int64_t>(targets.size())));
  RETURN_IF_ERROR(CheckAlike(&targets, "target"));
  made->targets_ = std::move(targets);
  return made;
}

absl::StatusOr<Batch> RaggedDataset::Get(const std::vector<int64_t>& indices) const {
  const torch::NoGradGuard no_grad;
  for (const int64_t index : indices) {
    if (index < 0 || index >= size())
      return absl::OutOfRangeError(absl::StrCat("sample ", index, "; allowed: 0 to ", size(), " exclusive"));
  }
  Batch batch;
  batch.ragged = Chosen(samples_, indices, view_);
  if (target_.defined()) batch.target = target_.index_select(0, torch::tensor(indices, torch::kInt64));
  if (!targets_.empty()) batch.ragged_target = Chosen(targets_, indices, target_view_);
  batch.size = static_cast<int64_t>(indices.size());
  return batch;
}

}  // namespace athanor
