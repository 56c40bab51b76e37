// The recorded training problem, trained by the library's own TorchRunner, and what was seen on the way.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "athanor/runner/torch_runner.h"

namespace athanor::oracle {

// Linear(3, 4), tanh, Linear(4, outputs) in float64 with the recorded weights ("0.weight", "2.bias" …).
std::shared_ptr<torch::nn::SequentialImpl> MakeTraceModel(const nlohmann::json& weights);

// Rows `x` and `y` as tensors; the targets of `ignored` rows are -100. Classes are int64.
struct TraceData {
  torch::Tensor x, y;
};
TraceData MakeTraceData(const nlohmann::json& rows, bool classes, const std::vector<int64_t>& ignored);

struct TraceSpec {
  nlohmann::json config;  // as recorded
  nlohmann::json weights;
  std::map<std::string, TraceData> splits;
  std::string criterion = "mse_mean";  // mse_mean, mse_sum, fn_mse, ce
  std::vector<int64_t> poisoned;       // micro-steps whose loss is multiplied by `poison`
  double poison = 0;
  std::string checkpoint_root;                  // empty: no checkpoints
  std::vector<ResumeCandidate> candidates;      // restore from these
  std::function<bool(const TrainState&)> stop;  // leave at the next step boundary once it is true
};

struct MicroStep {
  double loss = 0;
  int64_t size = 0;
  std::vector<double> lrs;  // while it ran
  int64_t step = 0;         // updates before it
  int64_t micro_step = 0;   // the run's count at the start of its window
  double weights_norm = 0;  // 2-norm of all weights before it
};

struct TraceResult {
  absl::Status status;
  std::vector<MicroStep> micro_steps;
  TrainState state;
  std::vector<double> lrs;
  std::map<std::string, torch::Tensor> weights;
  std::map<int64_t, ResultRow> rows;  // of results, by index
  std::vector<int64_t> saved_steps;
  int64_t updates_per_pass = 0;
};

// The recorded configuration in this library's words. INVALID_ARGUMENT where it is refused.
absl::StatusOr<RunnerConfig> TraceConfig(const nlohmann::json& recorded);

TraceResult RunTrace(const TraceSpec& spec);

// The mean loss (weighted as recorded) of a batch, and its normaliser: undefined where none is known.
StepOutput TraceLoss(const std::string& criterion, const torch::Tensor& prediction, const torch::Tensor& target);
double WeightsNorm(torch::nn::Module& model);
std::string CompareWeights(const nlohmann::json& expected, const std::map<std::string, torch::Tensor>& found,
                           double tolerance);

// A folder that goes away with the object.
class TraceFolder {
 public:
  TraceFolder();
  ~TraceFolder();
  TraceFolder(const TraceFolder&) = delete;
  const std::string& path() const { return path_; }
  ResumeCandidate At(int64_t step) const;

 private:
  std::string path_;
};

}  // namespace athanor::oracle
