// The update of an optimizer that evaluates its window of micro-batches as often as it wants (lbfgs).
#pragma once

#include <torch/torch.h>

#include <vector>

#include "absl/status/status.h"
#include "athanor/runner/step/update_window.h"

namespace athanor {

class ClosureWindow {
 public:
  // All outlive this object.
  ClosureWindow(UpdateWindow* window, TrainedModel* trained) : window_(window), trained_(trained) {}
  void Reseat(const Membership& members) { members_ = members; }
  // Collective.
  absl::Status Run(StepResult* result);

 private:
  torch::Tensor Evaluate(const std::vector<Batch>& batches, bool measure, StepTimes* times, absl::Status* failed);

  UpdateWindow* const window_;
  TrainedModel* const trained_;
  Membership members_;
};

}  // namespace athanor
