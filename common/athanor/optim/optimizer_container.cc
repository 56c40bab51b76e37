#include "athanor/optim/optimizer_container.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/optim/gradients.h"

namespace athanor {

absl::StatusOr<bool> OptimizerContainer::Step(double factor) {
  return ScaledStep(factor, factor != 1);
}

absl::StatusOr<bool> OptimizerContainer::Step(const torch::Tensor& factor) {
  return ScaledStep(factor, true);
}

absl::StatusOr<bool> OptimizerContainer::MustSkip() const {
  if (!options_.skip_nonfinite_grad) return false;
  const bool mine = NonFiniteGradients(optimizer_->parameters()).item<float>() != 0;
  return options_.any_rank ? options_.any_rank(mine) : mine;
}

template <class Factor>
absl::StatusOr<bool> OptimizerContainer::ScaledStep(const Factor& factor, bool scale) {
  if (optimizer_->needs_closure()) {
    return absl::FailedPreconditionError(
        absl::StrCat(optimizer_->type(), " evaluates the loss several times an update: call Step(closure)"));
  }
  const auto& parameters = optimizer_->parameters();
  ASSIGN_OR_RETURN(const bool skip, MustSkip());
  if (skip) {
    ZeroGrad();
    ++skipped_;
    return false;
  }
  if (scale) ScaleGradients(parameters, factor);
  if (options_.max_grad_value) ClipGradValue(parameters, *options_.max_grad_value);
  if (options_.max_grad_norm) {
    grad_norm_ = ClipGradNorm(parameters, *options_.max_grad_norm);
  } else if (measure_norm_) {
    grad_norm_ = GradNorm(parameters);
  }
  optimizer_->Step();
  RETURN_IF_ERROR(StepSchedules());
  ZeroGrad();
  return true;
}

absl::StatusOr<bool> OptimizerContainer::Step(const LossClosure& closure) {
  optimizer_->Step(closure);
  RETURN_IF_ERROR(StepSchedules());
  ZeroGrad();
  return true;
}

absl::Status OptimizerContainer::StepSchedules() {
  ++updates_;
  for (LrScheduler* scheduler : schedulers_) {
    if (scheduler->interval() == SchedInterval::kStep) RETURN_IF_ERROR(scheduler->Step());
  }
  return absl::OkStatus();
}

absl::Status OptimizerContainer::StepEpoch(std::optional<double> metric) {
  for (LrScheduler* scheduler : schedulers_) {
    if (scheduler->interval() != SchedInterval::kEpoch) continue;
    // Without a number there is no improvement to see.
    RETURN_IF_ERROR(scheduler->needs_metric() ? scheduler->Step(metric.value_or(std::nan(""))) : scheduler->Step());
  }
  return absl::OkStatus();
}

}  // namespace athanor
