// What is trained, and with what: the model and everything that is bound to its parameters.
//
// A record of parts; built by build_runner.h. Not thread-safe; the training thread.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <optional>

#include "athanor/optim/lr_scheduler.h"
#include "athanor/optim/optimizer.h"
#include "athanor/optim/optimizer_container.h"
#include "athanor/parallel/gradient_reducer.h"
#include "athanor/runner/step/model_average.h"
#include "athanor/runner/step/precision.h"
#include "athanor/runner/step/step_graph.h"
#include "athanor/torch/device_graph.h"
#include "athanor/torch/fp8_linear.h"

namespace athanor {

struct TrainedModel {
  std::shared_ptr<torch::nn::Module> model;
  std::unique_ptr<GradientReducer> reducer;  // null: one rank
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<LrScheduler> scheduler;  // null: a constant rate
  std::unique_ptr<ModelAverage> average;   // null: none
  GradientScale scale{false};
  std::optional<Fp8Recipe> fp8;          // unset: no linear layers in 8 bits
  std::shared_ptr<DeviceGraphs> graphs;  // null: nothing is captured
  std::unique_ptr<StepGraph> graph;      // null: step by step
  std::unique_ptr<OptimizerContainer> container;

  // Graphs go on adding to the tensors that they were captured with.
  bool GradientsStay() const { return graph != nullptr && (reducer == nullptr || reducer->settled()); }
  void DropGradients();
};

}  // namespace athanor
