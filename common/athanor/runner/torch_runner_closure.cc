// The update of an optimizer that evaluates its window of micro-batches as often as it wants (lbfgs).
#include <stdexcept>
#include <utility>
#include <variant>

#include "athanor/base/status_macros.h"
#include "athanor/optim/gradients.h"
#include "athanor/runner/torch_runner.h"
#include "athanor/torch/status.h"

namespace athanor {

absl::Status TorchRunner::ClosureUpdate(StepResult* result) {
  std::vector<Batch> window;
  double divisor = 0;
  BeginWindow();
  while (!window_ends_) {
    ASSIGN_OR_RETURN(Batch batch, NextMicroBatch(&divisor, result));
    window.push_back(ToDevice(std::move(batch)));
  }
  Telemetry::Clock clock;
  bool measure = true;  // the first evaluation is of the weights that the step starts from
  absl::Status failed;
  absl::StatusOr<bool> updated = false;
  const absl::Status run = RunTorch("optimizer step", [&] {
    updated = container_->Step(
        [&] { return EvaluateWindow(window, divisor, std::exchange(measure, false), &result->times, &failed); });
    if (updated.ok() && average_ != nullptr) average_->Update();
  });
  RETURN_IF_ERROR(failed);
  RETURN_IF_ERROR(run);
  ASSIGN_OR_RETURN(result->updated, updated);
  result->times.optimizer = clock.Lap() - result->times.forward - result->times.backward;
  return absl::OkStatus();
}

// The mean loss over the window on all ranks, with its gradients: every rank's line search takes the same turns.
torch::Tensor TorchRunner::EvaluateWindow(const std::vector<Batch>& window, double divisor, bool measure,
                                          StepTimes* times, absl::Status* failed) {
  BeginWindow();
  for (size_t i = 0; i < window.size(); ++i) {
    window_ends_ = i + 1 == window.size();
    ForwardBackward(window[i], times, measure);
  }
  torch::Tensor loss = window_loss_.to(torch::kFloat64).reshape({});
  *failed = AgreeOnTotal(divisor);
  if (failed->ok() && options_.process_group != nullptr) {
    *failed = options_.process_group->AllReduceSum(loss);
    loss /= options_.process_group->world_size();
  }
  if (!failed->ok()) throw std::runtime_error(std::string(failed->message()));  // the optimizer has no other way out
  std::visit(
      [&](const auto& factor) {
        ScaleGradients(optimizer_->parameters(), factor);
        loss = loss * factor;
      },
      WindowFactor(divisor));
  return loss;
}

}  // namespace athanor
