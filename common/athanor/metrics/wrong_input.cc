#include "athanor/metrics/wrong_input.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/metrics/state_reader.h"

namespace athanor {

void AddCount(const torch::Tensor& count, torch::Tensor* total) {
  if (!count.defined()) return;
  *total = total->defined() ? total->to(count.device(), /*non_blocking=*/!count.is_cpu()) + count : count.clone();
}

int64_t NumberOf(const torch::Tensor& count) {
  return count.defined() ? count.item<int64_t>() : 0;
}

torch::Tensor NanWhere(const torch::Tensor& count, const torch::Tensor& value) {
  if (!count.defined() || !value.is_floating_point()) return value;  // counts stay counts
  const torch::Tensor nan = torch::full_like(value, std::numeric_limits<double>::quiet_NaN());
  if (count.is_cpu()) return count.item<int64_t>() > 0 ? nan : value;
  return torch::where(count.to(value.device(), /*non_blocking=*/true) > 0, nan, value);
}

torch::Tensor CountOrZero(const torch::Tensor& count) {
  return count.defined() ? count : torch::zeros({}, torch::kInt64);
}

void WrongInput::Add(const MaskedBatch& batch) {
  AddCount(batch.unknown_labels, &labels);
  AddCount(batch.outside_of_range, &scores);
  AddCount(batch.nan_scores, &nans);
}

int64_t WrongInput::LabelCount() const {
  return NumberOf(labels);
}

int64_t WrongInput::ScoreCount() const {
  return NumberOf(scores);
}

int64_t WrongInput::NanCount() const {
  return NumberOf(nans);
}

absl::Status WrongInput::Check(int64_t labels, int64_t scores, MetricTask task, int64_t width) {
  if (labels > 0) {
    return absl::FailedPreconditionError(absl::StrCat(labels, " labels that do not exist for ", ToString(task),
                                                      " of width ", width,
                                                      " (classes are whole numbers from 0; there are no soft labels)"));
  }
  if (scores > 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        scores, " scores outside 0..1 although they were declared as probabilities; declare Scores::kLogits"));
  }
  return absl::OkStatus();
}

void WrongInput::Save(TensorMap* state) const {
  (*state)["unknown_labels"] = CountOrZero(labels);
  (*state)["outside_of_range"] = CountOrZero(scores);
  (*state)["nan_scores"] = CountOrZero(nans);
}

absl::StatusOr<WrongInput> WrongInput::Read(StateReader* reader) {
  WrongInput wrong;
  ASSIGN_OR_RETURN(wrong.labels, reader->TakeCount("unknown_labels"));
  ASSIGN_OR_RETURN(wrong.scores, reader->TakeCount("outside_of_range"));
  if (reader->Has("nan_scores")) {
    ASSIGN_OR_RETURN(wrong.nans, reader->TakeCount("nan_scores"));
  }
  return wrong;
}

}  // namespace athanor
