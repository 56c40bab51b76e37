#include "athanor/data/tolerant_dataset.h"

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/nested/ops/shape.h"

namespace athanor {
namespace {

constexpr size_t kErrorsKept = 20;

torch::Tensor Joined(const std::vector<Batch>& parts, torch::Tensor Batch::* member) {
  std::vector<torch::Tensor> tensors;
  for (const Batch& part : parts) {
    if ((part.*member).defined()) tensors.push_back(part.*member);
  }
  return tensors.empty() ? torch::Tensor() : torch::cat(tensors);
}

std::optional<NestedTensor> Joined(const std::vector<Batch>& parts, std::optional<NestedTensor> Batch::* member) {
  if (!(parts.front().*member).has_value()) return std::nullopt;
  std::vector<torch::Tensor> elements;
  for (const Batch& part : parts) {
    for (torch::Tensor& element : nested::unbind(*(part.*member))) elements.push_back(std::move(element));
  }
  NestedOptions options;
  static_cast<NestedView&>(options) = (parts.front().*member)->view();
  return NestedTensor(elements, options);
}

}  // namespace

absl::StatusOr<Batch> TolerantDataset::GetInEpoch(const std::vector<int64_t>& indices, int64_t epoch) const {
  absl::StatusOr<Batch> whole = inner_->GetInEpoch(indices, epoch);
  if (!absl::IsDataLoss(whole.status())) return whole;
  std::vector<Batch> parts;
  for (const int64_t index : indices) {
    absl::StatusOr<Batch> sample = inner_->GetInEpoch({index}, epoch);
    if (sample.ok()) {
      parts.push_back(*std::move(sample));
    } else if (absl::IsDataLoss(sample.status())) {
      RETURN_IF_ERROR(Note(index, sample.status()));
    } else {
      return sample;
    }
  }
  if (parts.empty()) return Annotate(whole.status(), "every sample of the batch is damaged");
  Batch batch;
  batch.input = Joined(parts, &Batch::input);
  batch.target = Joined(parts, &Batch::target);
  batch.ragged = Joined(parts, &Batch::ragged);
  batch.ragged_target = Joined(parts, &Batch::ragged_target);
  for (const auto& [name, tensor] : parts.front().more) {
    std::vector<torch::Tensor> rows;
    for (const Batch& part : parts) rows.push_back(part.more.at(name));
    batch.more[name] = torch::cat(rows);
  }
  for (const Batch& part : parts) batch.size += part.size;
  return batch;
}

absl::Status TolerantDataset::Note(int64_t index, const absl::Status& error) const {
  const std::lock_guard lock(mutex_);
  ++report_.skipped;
  if (!damaged_.insert(index).second) return absl::OkStatus();
  ++report_.damaged;
  if (report_.errors.size() < kErrorsKept) report_.errors.emplace_back(error.message());
  if (report_.damaged <= options_.max_damaged) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("more than max_damaged = ", options_.max_damaged,
                                          " samples are damaged; the last: ", error.message()));
}

DamageReport TolerantDataset::report() const {
  const std::lock_guard lock(mutex_);
  return report_;
}

}  // namespace athanor
