// What a user implements to train something with Athanor: a model, its data and its loss. The runner does the rest.
//
//   class MyTask : public athanor::Task { ... };
//   ATHANOR_REGISTER_TASK("my_task", MyTask);   // in a library that the job file names as task.library
//
// One Task object per rank. Not thread-safe: called on the training thread only; its datasets are read by loader
// threads.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/data/dataset.h"
#include "athanor/metrics/meter_sync.h"
#include "athanor/metrics/metric_set.h"
#include "athanor/runner/step/step_output.h"

namespace athanor {

struct TaskContext {
  int rank = 0;
  int world_size = 1;
  torch::Device device = torch::kCPU;
  nlohmann::json options;  // the job file's task.options: check every key, refuse unknown ones by name
  std::string precision;   // runner.precision: "", "fp32", "bf16", "fp16", "fp8"
};

class Task {
 public:
  virtual ~Task() = default;
  // Reads options and data. INVALID_ARGUMENT names the option; NOT_FOUND or DATA_LOSS names the file.
  virtual absl::Status Setup(const TaskContext& context) = 0;
  // The module whose parameters are trained; the same object every time. Its initial weights come from the seeded
  // generator.
  virtual std::shared_ptr<torch::nn::Module> Model() = 0;
  // Splits by name: "train" is required; the others ("val", "test") are evaluated.
  virtual std::map<std::string, std::shared_ptr<Dataset>> Datasets() = 0;
  // One forward pass; the batch is on the model's device. Called in train mode with gradients, in eval mode without.
  virtual StepOutput Forward(const Batch& batch) = 0;
  // Metrics of StepOutput::scores and labels; a new set each time, null for none. `sync` is over the ranks, also
  // over a single one, and goes into it. See TorchRunnerOptions::metrics.
  virtual absl::StatusOr<std::unique_ptr<MetricSet>> Metrics(std::shared_ptr<MeterSync> /*sync*/) { return nullptr; }
};

using TaskFactory = std::function<std::unique_ptr<Task>()>;
// Registers under a unique name; false, and no change, when the name is taken: the task loader then refuses the library
// by RefusedTaskNames(). Any thread.
bool RegisterTask(const std::string& name, TaskFactory factory);
absl::StatusOr<std::unique_ptr<Task>> MakeTask(const std::string& name);  // NOT_FOUND lists the known names
std::vector<std::string> TaskNames();                                     // sorted
std::vector<std::string> RefusedTaskNames();  // registered more than once; the first registration holds

}  // namespace athanor

#define ATHANOR_REGISTER_TASK(name, type)                             \
  [[maybe_unused]] static const bool athanor_task_registered_##type = \
      ::athanor::RegisterTask(name, [] { return std::make_unique<type>(); })
