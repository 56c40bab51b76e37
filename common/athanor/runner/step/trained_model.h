// What is trained, and with what: the model and everything that is bound to its parameters.
//
// A record of parts; built by build_runner.h. Not thread-safe; the training thread.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "athanor/optim/lr_scheduler.h"
#include "athanor/optim/optimizer.h"
#include "athanor/optim/optimizer_container.h"
#include "athanor/parallel/strategies/data_strategy.h"
#include "athanor/runner/step/model_average.h"
#include "athanor/runner/step/precision.h"
#include "athanor/runner/step/step_graph.h"
#include "athanor/torch/device_graph.h"
#include "athanor/torch/fp8_linear.h"

namespace athanor {

struct TrainedModel {
  std::shared_ptr<torch::nn::Module> model;
  std::unique_ptr<DataStrategy> strategy;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<LrScheduler> scheduler;  // null: a constant rate
  std::unique_ptr<ModelAverage> average;   // null: none
  GradientScale scale{false};
  std::optional<Fp8Recipe> fp8;          // unset: no linear layers in 8 bits
  std::shared_ptr<DeviceGraphs> graphs;  // null: nothing is captured
  std::unique_ptr<StepGraph> graph;      // null: step by step
  std::unique_ptr<OptimizerContainer> container;
  std::optional<torch::ScalarType> input_type;   // of a batch's floating-point tensors; unset: as they come
  std::optional<torch::ScalarType> output_type;  // of the loss; unset: as it comes

  // Graphs go on adding to the tensors that they were captured with.
  bool GradientsStay() const { return graph != nullptr && strategy->settled(); }
  void DropGradients();

  // Runs `body` in eval mode, with the average of the weights where there is one; an exception is an error that begins
  // with `what`. Collective where the strategy divides the model.
  absl::Status Evaluate(absl::string_view what, const std::function<absl::Status()>& body);
};

}  // namespace athanor
