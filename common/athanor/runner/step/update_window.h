// One update: the micro-batches of a window, forward and backward, the exchange of gradients with the last of them, and
// the optimizer's step.
//
//   UpdateWindow window(&context, &trained, &data, steps, &measures);
//   RETURN_IF_ERROR(window.Reseat(members));
//   RETURN_IF_ERROR(window.Run(/*measure_norm=*/read_out_follows, &result));
//
// An optimizer that evaluates its window as often as it wants does so through closure_window.h. Not thread-safe; the
// training thread. Run() is collective.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/data/dataset.h"
#include "athanor/parallel/membership.h"
#include "athanor/runner/record/run_measures.h"
#include "athanor/runner/run_context.h"
#include "athanor/runner/step/run_data.h"
#include "athanor/runner/step/step_output.h"
#include "athanor/runner/step/torch_steps.h"
#include "athanor/runner/step/trained_model.h"
#include "athanor/runner/trainee.h"

namespace athanor {

class UpdateWindow {
 public:
  // All outlive this object.
  UpdateWindow(RunContext* context, TrainedModel* trained, RunData* data, TorchSteps* steps, RunMeasures* measures);
  absl::Status Reseat(const Membership& members);

  // `measure_norm`: the norm of the gradients is wanted.
  absl::Status Run(bool measure_norm, StepResult* result);
  // The first update is over: timeouts are those of training from now on.
  void Settle();

  // What a training step does once per micro-batch, with the output of its forward pass: weighs the loss within the
  // window, and runs backward.
  void Accumulate(const StepOutput& output, const Batch& batch);

  // For the optimizer that runs the window itself. Between Begin() and the last micro-batch gradients add up.
  void Begin();
  absl::StatusOr<Batch> Next(StepResult* result);  // on the model's device
  bool ends() const { return ends_; }              // with the micro-batch that came last
  void SetEnds(bool ends) { ends_ = ends; }
  void ForwardBackward(const Batch& batch, StepTimes* times, bool measure);
  // The samples of the window so far, in whole micro-batches.
  void SetDivisor(double divisor) { divisor_ = divisor; }
  // What the window is divided by, agreed with the other ranks where they may count differently.
  absl::Status AgreeOnTotal();
  // From sums over the window to its mean; takes the scale of float16 losses away.
  std::variant<double, torch::Tensor> Factor() const;
  const torch::Tensor& loss() const { return loss_; }  // sum of the weighed losses

 private:
  absl::StatusOr<bool> Update(bool measure_norm);
  torch::Tensor WeightedLoss(const StepOutput& output);

  RunContext* const context_;
  TrainedModel* const trained_;
  RunData* const data_;
  TorchSteps* const steps_;
  RunMeasures* const measures_;
  Membership members_;
  double divisor_ = 0;
  torch::Tensor weight_;  // sum of the window's StepOutput::weight; undefined: samples count
  torch::Tensor total_;   // what the window is divided by, of all ranks; undefined: each knows it by itself
  torch::Tensor loss_;    // only for optimizers that ask for it
  int64_t batches_ = 0;
  bool ends_ = false;
  double backward_seconds_ = 0;  // of the micro-batch under way
  bool first_ = true;            // update
};

}  // namespace athanor
