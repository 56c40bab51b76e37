#include "tests/oracle/trace_run.h"

#include <stdlib.h>

#include <cstdio>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/local_committer.h"
#include "athanor/config/config_loader.h"
#include "athanor/config/derived_options.h"
#include "athanor/data/tensor_dataset.h"
#include "tests/oracle/replay.h"

namespace athanor::oracle {
namespace {

using nlohmann::json;

constexpr int64_t kIgnored = -100;

torch::Tensor Rows(const json& rows) {
  std::vector<double> numbers;
  int64_t columns = 0;
  for (const json& row : rows) {
    columns = static_cast<int64_t>(row.size());
    for (const json& value : row) numbers.push_back(Number(value));
  }
  return torch::tensor(numbers, torch::kFloat64).reshape({static_cast<int64_t>(rows.size()), columns});
}

// Watches the run, and asks it to leave.
class Watcher : public RunnerHooks {
 public:
  explicit Watcher(const TraceSpec& spec) : spec_(spec) {}
  void Bind(const TorchRunner* runner) { runner_ = runner; }
  bool StopRequested() const override { return spec_.stop && runner_ != nullptr && spec_.stop(runner_->state()); }

 private:
  const TraceSpec& spec_;
  const TorchRunner* runner_ = nullptr;
};

class RecordingCommitter : public LocalCommitter {
 public:
  RecordingCommitter(const std::string& root, TraceResult* result) : LocalCommitter(root, 0, 1), result_(result) {}
  absl::Status CommitManifest(const ManifestSummary& summary) override {
    // A step that is saved again, as the model alone, counts once.
    if (result_->saved_steps.empty() || result_->saved_steps.back() != summary.step)
      result_->saved_steps.push_back(summary.step);
    return LocalCommitter::CommitManifest(summary);
  }

 private:
  TraceResult* result_;
};

std::vector<double> LrsOf(const Optimizer& optimizer) {
  std::vector<double> lrs;
  for (size_t group = 0; group < optimizer.group_count(); ++group) lrs.push_back(optimizer.lr(group));
  return lrs;
}

}  // namespace

std::shared_ptr<torch::nn::SequentialImpl> MakeTraceModel(const json& weights) {
  const auto outputs = static_cast<int64_t>(weights.at("2.bias").size());
  auto model = std::make_shared<torch::nn::SequentialImpl>(torch::nn::Linear(3, 4), torch::nn::Tanh(),
                                                           torch::nn::Linear(4, outputs));
  model->to(torch::kFloat64);
  const torch::NoGradGuard no_grad;
  for (auto& item : model->named_parameters()) {
    const json& rows = weights.at(item.key());
    item.value().copy_(Rows(rows.at(0).is_array() ? rows : json::array({rows})).reshape(item.value().sizes()));
  }
  return model;
}

TraceData MakeTraceData(const json& rows, bool classes, const std::vector<int64_t>& ignored) {
  TraceData data{.x = Rows(rows.at("x")), .y = {}};
  data.y = classes ? torch::tensor(rows.at("y").get<std::vector<int64_t>>(), torch::kInt64) : Rows(rows.at("y"));
  for (const int64_t row : ignored) data.y[row] = kIgnored;
  return data;
}

StepOutput TraceLoss(const std::string& criterion, const torch::Tensor& prediction, const torch::Tensor& target) {
  namespace F = torch::nn::functional;
  StepOutput output;
  output.weight = torch::ones({}, torch::kFloat64);  // no normaliser is known: every micro-batch counts the same
  if (criterion == "ce") {
    output.loss = F::cross_entropy(prediction, target, F::CrossEntropyFuncOptions().ignore_index(kIgnored));
    output.weight = (target != kIgnored).sum();
  } else if (criterion == "mse_mean") {
    output.loss = F::mse_loss(prediction, target);
    output.weight = torch::full({}, static_cast<double>(target.numel()), torch::kFloat64);
  } else if (criterion == "mse_sum") {
    output.loss = F::mse_loss(prediction, target, F::MSELossFuncOptions().reduction(torch::kSum));
  } else if (criterion == "fn_mse") {
    output.loss = F::mse_loss(prediction, target);
  } else {
    throw std::invalid_argument("unknown criterion '" + criterion + "'");
  }
  return output;
}

double WeightsNorm(torch::nn::Module& model) {
  const torch::NoGradGuard no_grad;
  double squares = 0;
  for (const torch::Tensor& parameter : model.parameters()) squares += parameter.square().sum().item<double>();
  return std::sqrt(squares);
}

absl::StatusOr<RunnerConfig> TraceConfig(const json& recorded) {
  json config = recorded;
  // What the recorder does where nothing is said.
  json& loader = config["dataloader"];
  if (!loader.contains("batch_size")) loader["batch_size"] = 2;
  if (!loader.contains("shuffle")) loader["shuffle"] = false;
  if (!loader.contains("drop_last")) loader["drop_last"] = recorded.value("dataloader", json::object()).size() > 0;
  if (!config.contains("seed")) config["seed"] = 1016;
  config["threads"] = 1;
  config["console"] = config["log"] = false;
  config["checkpoint"]["async_enabled"] = false;
  config["checkpoint"]["keep_latest_k"] = 0;
  RunnerConfig result;
  RETURN_IF_ERROR(ToStatus(CheckRunnerConfig(config, &result)));
  return result;
}

TraceResult RunTrace(const TraceSpec& spec) {
  TraceResult result;
  auto config = TraceConfig(spec.config);
  if (!config.ok()) {
    result.status = config.status();
    return result;
  }
  const int64_t batch = config->dataloader.batch_size;
  for (const std::string& split : TrainSplitNames(*config)) {
    const int64_t rows = spec.splits.at(split).x.size(0);
    const int64_t batches = config->dataloader.drop_last ? rows / batch : (rows + batch - 1) / batch;
    result.updates_per_pass += UpdatesPerPass(batches, config->accum_steps);
  }
  auto model = MakeTraceModel(spec.weights);
  Watcher watcher(spec);
  const TraceFolder run_folder;
  RecordingCommitter committer(spec.checkpoint_root, &result);
  std::unique_ptr<TorchRunner> runner;
  TorchRunnerOptions options;
  options.model = model;
  for (const auto& [name, data] : spec.splits) options.datasets[name] = *TensorDataset::Make(data.x, data.y);
  options.forward = [&](const Batch& input) {
    StepOutput output = TraceLoss(spec.criterion, model->forward(input.input), input.target);
    if (!model->is_training()) return output;
    const auto number = static_cast<int64_t>(result.micro_steps.size());
    if (std::count(spec.poisoned.begin(), spec.poisoned.end(), number) > 0) output.loss = output.loss * spec.poison;
    result.micro_steps.push_back({.loss = output.loss.item<double>(),
                                  .size = input.size,
                                  .lrs = LrsOf(runner->optimizer()),
                                  .step = runner->state().step,
                                  .micro_step = runner->state().micro_step,
                                  .weights_norm = WeightsNorm(*model)});
    return output;
  };
  options.hooks = &watcher;
  options.workspace = Workspace{.dir = run_folder.path(), .id = "trace", .name = "trace", .timestamp = "trace"};
  options.checkpoint_root = spec.checkpoint_root;
  if (!spec.checkpoint_root.empty()) options.committer = &committer;
  options.resume_candidates = spec.candidates;
  auto made = TorchRunner::Create(*config, std::move(options));
  result.status = made.status();
  if (!made.ok()) return result;
  runner = *std::move(made);
  watcher.Bind(runner.get());
  result.status = runner->Train().status();
  result.state = runner->state();
  result.lrs = LrsOf(runner->optimizer());
  for (const auto& [index, row] : runner->results()->rows()) result.rows[index] = row;
  for (const auto& item : model->named_parameters()) result.weights[item.key()] = item.value().detach().clone();
  return result;
}

std::string CompareWeights(const json& expected, const std::map<std::string, torch::Tensor>& found, double tolerance) {
  for (const auto& [name, tensor] : found) {
    const json& rows = expected.at(name);
    const torch::Tensor want = Rows(rows.at(0).is_array() ? rows : json::array({rows})).reshape(tensor.sizes());
    if (std::string text = Compare(want, tensor, tolerance, name); !text.empty()) return text;
  }
  return "";
}

TraceFolder::TraceFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "athanor-trace-XXXXXX").string();
  path_ = mkdtemp(name.data());
}

TraceFolder::~TraceFolder() {
  std::filesystem::remove_all(path_);
}

ResumeCandidate TraceFolder::At(int64_t step) const {
  char name[64];
  std::snprintf(name, sizeof(name), "/step-%012lld", static_cast<long long>(step));
  return {step, path_ + name, false};
}

}  // namespace athanor::oracle
