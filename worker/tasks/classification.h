// The loss and the metric that classifiers share.
#pragma once

#include <torch/torch.h>

#include "athanor/runner/step_output.h"

namespace athanor {

// Cross-entropy, and "accuracy": the share of samples whose largest logit is the target. `logits` N x classes, `target`
// N, int64.
inline StepOutput ClassificationOutput(const torch::Tensor& logits, const torch::Tensor& target) {
  StepOutput output;
  output.loss = torch::cross_entropy_loss(logits, target);
  torch::NoGradGuard no_grad;
  output.metrics["accuracy"] = logits.argmax(1).eq(target).to(torch::kFloat32).mean();
  return output;
}

}  // namespace athanor
