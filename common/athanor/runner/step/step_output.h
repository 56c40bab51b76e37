// What one forward pass gives the runner.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <map>
#include <string>

#include "athanor/data/dataset.h"
#include "athanor/metrics/metric_set.h"

namespace athanor {

struct StepOutput {
  torch::Tensor loss;                            // scalar, differentiable; the mean over the batch's samples
  std::map<std::string, torch::Tensor> metrics;  // detached scalars, means over the batch; e.g. "accuracy"
  // How much the batch counts in its window and in the mean loss: the number of terms that `loss` is the mean of, such
  // as targets that are not ignored. A 0-dim tensor on the model's device; undefined: the batch's samples. Weight 0:
  // the batch counts nothing, and its loss may be NaN. Every call on every rank gives a weight, or none does.
  torch::Tensor weight;
  // For TorchRunnerOptions::metrics, N x ... as those metrics want them; undefined: nothing for them.
  torch::Tensor scores, labels;
  // The same for metrics of several tasks (MultiTaskMetrics): scores and labels by task. A task without a batch is left
  // out; scores and labels above do not count then.
  TaskBatches tasks;
};

// The batch is on the model's device. In train mode with gradients, in eval mode without. Every call, on every rank,
// gives the same metric names. An exception is the user's (failure kind user_code).
using ForwardFn = std::function<StepOutput(const Batch& batch)>;

}  // namespace athanor
