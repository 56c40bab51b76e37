// The steps of a TorchRunner, each of which a user may override (torch_runner.h says what they do).
#pragma once

#include <torch/torch.h>

#include <variant>

#include "absl/status/statusor.h"
#include "athanor/data/dataset.h"
#include "athanor/runner/step/step_output.h"

namespace athanor {

class TorchSteps {
 public:
  virtual ~TorchSteps() = default;
  virtual StepOutput TrainStep(const Batch& batch) = 0;
  virtual StepOutput EvaluateStep(const Batch& batch) = 0;
  virtual torch::Tensor InferStep(const Batch& batch) = 0;
  virtual void Backward(const torch::Tensor& loss) = 0;
  virtual absl::StatusOr<bool> OptimizerStep(const std::variant<double, torch::Tensor>& factor) = 0;
};

}  // namespace athanor
