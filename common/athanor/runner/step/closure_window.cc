#include "athanor/runner/step/closure_window.h"

#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

#include "athanor/base/status_macros.h"
#include "athanor/optim/gradients.h"
#include "athanor/parallel/process_group.h"
#include "athanor/runner/watch/telemetry.h"
#include "athanor/torch/status.h"

namespace athanor {

absl::Status ClosureWindow::Run(StepResult* result) {
  std::vector<Batch> batches;
  window_->Begin();
  window_->SetDivisor(0);
  while (!window_->ends()) {
    ASSIGN_OR_RETURN(Batch batch, window_->Next(result));
    batches.push_back(std::move(batch));
  }
  Telemetry::Clock clock;
  bool measure = true;  // the first evaluation is of the weights that the step starts from
  absl::Status failed;
  absl::StatusOr<bool> updated = false;
  const absl::Status run = RunTorch("optimizer step", [&] {
    updated = trained_->container->Step(
        [&] { return Evaluate(batches, std::exchange(measure, false), &result->times, &failed); });
    if (updated.ok() && trained_->average != nullptr) trained_->average->Update();
  });
  RETURN_IF_ERROR(failed);
  RETURN_IF_ERROR(run);
  ASSIGN_OR_RETURN(result->updated, updated);
  result->times.optimizer = clock.Lap() - result->times.forward - result->times.backward;
  return absl::OkStatus();
}

// The mean loss over the window on all ranks, with its gradients: every rank's line search takes the same turns.
torch::Tensor ClosureWindow::Evaluate(const std::vector<Batch>& batches, bool measure, StepTimes* times,
                                      absl::Status* failed) {
  window_->Begin();
  for (size_t i = 0; i < batches.size(); ++i) {
    window_->SetEnds(i + 1 == batches.size());
    window_->ForwardBackward(batches[i], times, measure);
  }
  torch::Tensor loss = window_->loss().to(torch::kFloat64).reshape({});
  *failed = window_->AgreeOnTotal();
  if (failed->ok() && members_.group() != nullptr) {
    *failed = members_.group()->AllReduceSum(loss);
    loss /= members_.world_size();
  }
  if (!failed->ok()) throw std::runtime_error(std::string(failed->message()));  // the optimizer has no other way out
  std::visit(
      [&](const auto& factor) {
        ScaleGradients(trained_->optimizer->parameters(), factor);
        loss = loss * factor;
      },
      window_->Factor());
  return loss;
}

}  // namespace athanor
