// What a TorchRunner is given besides its configuration. Plain values.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "athanor/data/dataset.h"
#include "athanor/metrics/meter_sync.h"
#include "athanor/metrics/metric_set.h"
#include "athanor/runner/run_options.h"
#include "athanor/runner/step/step_output.h"
#include "athanor/torch/device_graph.h"

namespace athanor {

struct TorchRunnerOptions : BaseRunnerOptions {
  // Moved to `device`; rank 0's initial weights count. Made before Create(), it has weights that `config.seed` does not
  // determine: use `make_model` for these, or call SeedGenerators() (runner_state.h) first.
  std::shared_ptr<torch::nn::Module> model;
  // In place of `model`: called once by Create(), after the generators were seeded. Keeps what `forward` needs.
  std::function<std::shared_ptr<torch::nn::Module>()> make_model;
  std::map<std::string, std::shared_ptr<Dataset>> datasets;  // "train", or those of config.train_splits, are required
  ForwardFn forward;
  // For Infer(): the prediction for a batch, whose first dimension is the batch's. Its target may be undefined.
  std::function<torch::Tensor(const Batch& batch)> predict;
  // Metrics of StepOutput::scores and labels, or of StepOutput::tasks: one set for training, one for every evaluation.
  // `sync` is over the ranks, also over a single one, and goes into the set. Read out, and begun anew, with the mean
  // loss.
  std::function<absl::StatusOr<std::unique_ptr<MetricSet>>(std::shared_ptr<MeterSync> sync)> metrics;
  torch::Device device = torch::kCPU;
  std::shared_ptr<DeviceGraphs> graphs;  // what `compile.enable` captures with; null: the device's own (CUDA graphs)
  bool find_unused_parameters = false;   // a forward pass may leave parameters out (differently from rank to rank)
  // A program that a launcher started as one of several ranks and that never joins them (launch_environment.h) would
  // train as many times in one folder, and is refused. True: that is what is wanted, each in a folder of its own.
  bool alone = false;
};

}  // namespace athanor
