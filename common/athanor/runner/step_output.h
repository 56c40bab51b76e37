// What one forward pass gives the runner.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <map>
#include <string>

#include "athanor/data/dataset.h"

namespace athanor {

struct StepOutput {
  torch::Tensor loss;                            // scalar, differentiable; the mean over the batch's samples
  std::map<std::string, torch::Tensor> metrics;  // detached scalars, means over the batch; e.g. "accuracy"
};

// The batch is on the model's device. In train mode with gradients, in eval mode without. Every call, on every rank,
// gives the same metric names. An exception is the user's (failure kind user_code).
using ForwardFn = std::function<StepOutput(const Batch& batch)>;

}  // namespace athanor
