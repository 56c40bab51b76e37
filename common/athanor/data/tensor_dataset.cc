#include "athanor/data/tensor_dataset.h"

#include "absl/strings/str_cat.h"

namespace athanor {

absl::StatusOr<std::shared_ptr<TensorDataset>> TensorDataset::Make(torch::Tensor input, torch::Tensor target,
                                                                   std::map<std::string, torch::Tensor> more) {
  if (!input.defined() || input.dim() == 0 || input.size(0) == 0)
    return absl::InvalidArgumentError("tensor dataset: the input has no rows");
  if (!input.device().is_cpu() || (target.defined() && !target.device().is_cpu())) {
    return absl::InvalidArgumentError("tensor dataset: found tensors on a device; allowed: on the CPU");
  }
  if (target.defined() && (target.dim() == 0 || target.size(0) != input.size(0))) {
    return absl::InvalidArgumentError(absl::StrCat("tensor dataset: found ", input.size(0), " inputs and ",
                                                   target.dim() == 0 ? 1 : target.size(0),
                                                   " targets; allowed: as many of both"));
  }
  for (auto& [name, tensor] : more) {
    if (!tensor.defined() || !tensor.device().is_cpu() || tensor.dim() == 0 || tensor.size(0) != input.size(0)) {
      return absl::InvalidArgumentError(absl::StrCat("tensor dataset: '", name, "': allowed: a tensor on the CPU of ",
                                                     input.size(0), " rows, as the input"));
    }
    tensor = tensor.detach().contiguous();
  }
  input = input.detach().contiguous();
  if (target.defined()) target = target.detach().contiguous();
  return std::shared_ptr<TensorDataset>(new TensorDataset(std::move(input), std::move(target), std::move(more)));
}

absl::StatusOr<Batch> TensorDataset::Get(const std::vector<int64_t>& indices) const {
  const torch::NoGradGuard no_grad;
  for (int64_t index : indices) {
    if (index < 0 || index >= size())
      return absl::OutOfRangeError(absl::StrCat("sample ", index, "; allowed: 0 to ", size(), " exclusive"));
  }
  const auto count = static_cast<int64_t>(indices.size());
  // Only read by the gather below.
  const torch::Tensor rows = torch::from_blob(const_cast<int64_t*>(indices.data()), {count}, torch::kInt64);
  Batch batch;
  batch.input = input_.index_select(0, rows);
  if (target_.defined()) batch.target = target_.index_select(0, rows);
  for (const auto& [name, tensor] : more_) batch.more[name] = tensor.index_select(0, rows);
  batch.size = count;
  return batch;
}

}  // namespace athanor
