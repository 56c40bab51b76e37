// Inference: predictions for the samples of a split, in order. Streams: nothing is kept. Not collective.
//
// Not thread-safe; the training thread.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "athanor/data/stateful_data_loader.h"
#include "athanor/runner/run_context.h"
#include "athanor/runner/step/torch_steps.h"
#include "athanor/runner/step/trained_model.h"

namespace athanor {

class Inference {
 public:
  // Takes one batch's prediction, on the CPU; anything but OK ends the inference.
  using Sink = std::function<absl::Status(const Batch& batch, torch::Tensor prediction)>;

  // All outlive this object.
  Inference(RunContext* context, TrainedModel* trained, TorchSteps* steps)
      : context_(context), trained_(trained), steps_(steps) {}

  // In eval mode without gradients, with the average of the weights where there is one; the mode of before afterwards.
  absl::Status Run(StatefulDataLoader* loader, const Sink& sink, int64_t max_batches);

 private:
  absl::Status PredictAll(StatefulDataLoader* loader, const Sink& sink, int64_t max_batches);

  RunContext* const context_;
  TrainedModel* const trained_;
  TorchSteps* const steps_;
};

}  // namespace athanor
