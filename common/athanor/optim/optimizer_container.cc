#include "athanor/optim/optimizer_container.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/optim/gradients.h"

namespace athanor {

OptimizerContainer::OptimizerContainer(Optimizer* optimizer, OptimizerContainerOptions options)
    : optimizer_(optimizer), options_(std::move(options)) {
  if (options_.graphs != nullptr && !optimizer_->KeepScalarsOnDevice()) options_.graphs.reset();
}

absl::StatusOr<bool> OptimizerContainer::Step(double factor) {
  return ScaledStep(factor);
}

absl::StatusOr<bool> OptimizerContainer::Step(const torch::Tensor& factor) {
  return ScaledStep(factor);
}

absl::StatusOr<bool> OptimizerContainer::MustSkip() const {
  if (!options_.skip_nonfinite_grad) return false;
  const bool mine = NonFiniteGradients(optimizer_->parameters()).item<float>() != 0;
  return options_.any_rank ? options_.any_rank(mine) : mine;
}

torch::Tensor OptimizerContainer::Norm() const {
  return options_.norm ? options_.norm(optimizer_->parameters()) : GradNorm(optimizer_->parameters());
}

absl::StatusOr<bool> OptimizerContainer::ScaledStep(const Factor& factor) {
  if (optimizer_->needs_closure()) {
    return absl::FailedPreconditionError(
        absl::StrCat(optimizer_->type(), " evaluates the loss several times an update: call Step(closure)"));
  }
  ASSIGN_OR_RETURN(const bool skip, MustSkip());
  if (skip) {
    ZeroGrad();
    ++skipped_;
    return false;
  }
  optimizer_->Prepare();
  const bool measure = measure_norm_ && !options_.max_grad_norm;
  const bool graph = options_.graphs != nullptr && use_graphs_;
  const torch::Tensor norm = graph ? UpdateByGraph(factor, measure) : UpdateOnDevice(factor, measure);
  if (norm.defined()) grad_norm_ = norm;
  RETURN_IF_ERROR(StepSchedules());
  return true;
}

// Waits for nothing, and does nothing on the host that a later update would have to do again: a graph may hold it.
torch::Tensor OptimizerContainer::UpdateOnDevice(const Factor& factor, bool measure) {
  const auto& parameters = optimizer_->parameters();
  if (const double* number = std::get_if<double>(&factor); number == nullptr) {
    ScaleGradients(parameters, std::get<torch::Tensor>(factor));
  } else if (*number != 1) {
    ScaleGradients(parameters, *number);
  }
  if (options_.max_grad_value) ClipGradValue(parameters, *options_.max_grad_value);
  torch::Tensor norm;
  if (options_.max_grad_norm) {
    norm = Norm();
    ClipGradNorm(parameters, norm, *options_.max_grad_norm);
  } else if (measure) {
    norm = Norm();
  }
  optimizer_->Apply();
  ZeroGrad();
  return norm;
}

torch::Tensor OptimizerContainer::UpdateByGraph(const Factor& factor, bool measure) {
  const torch::NoGradGuard no_grad;
  const double* number = std::get_if<double>(&factor);
  const bool scale = number == nullptr || *number != 1;
  auto found = graphed_.find({scale, measure});
  if (found == graphed_.end()) {
    // The first update makes the optimizer's state: it is never the one to capture.
    const int64_t warmup = std::max<int64_t>(options_.graph_warmup, 1);
    found = graphed_.emplace(std::pair(scale, measure), Graphed{GraphedWork(options_.graphs, warmup), {}, {}}).first;
  }
  Graphed& one = found->second;
  if (std::vector<uint64_t> signature = optimizer_->Signature(); signature != one.signature) {
    one.work.Reset();
    one.signature = std::move(signature);
  }
  if (scale) {
    if (!factor_.defined())
      factor_ = torch::empty({}, optimizer_->parameters().front().options().dtype(torch::kFloat64));
    number != nullptr ? factor_.fill_(*number) : factor_.copy_(std::get<torch::Tensor>(factor));
  }
  one.work.Run([&] { one.norm = UpdateOnDevice(scale ? Factor(factor_) : Factor(1.0), measure); });
  return one.norm;
}

int64_t OptimizerContainer::replays() const {
  int64_t sum = 0;
  for (const auto& [kind, one] : graphed_) sum += one.work.replays();
  return sum;
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
    if (scheduler->needs_metric() && !metric.has_value()) continue;  // nothing was measured: nothing has got worse
    RETURN_IF_ERROR(scheduler->needs_metric() ? scheduler->Step(metric) : scheduler->Step());
  }
  return absl::OkStatus();
}

}  // namespace athanor
