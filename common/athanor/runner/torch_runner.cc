#include "athanor/runner/torch_runner.h"

#include <typeinfo>

#include "absl/strings/str_cat.h"
#include "athanor/runner/state/run_checkpoints.h"
#include "athanor/runner/torch_training.h"
#include "athanor/runner/training_run.h"
#include "athanor/runner/watch/memory_report.h"
#include "athanor/torch/module_tensors.h"
#include "athanor/torch/status.h"

namespace athanor {

TorchRunner::TorchRunner(RunnerConfig config, TorchRunnerOptions options)
    : BaseRunner(std::move(config), options, options.device),
      training_(std::make_unique<TorchTraining>(&run(), static_cast<TorchSteps*>(this), std::move(options))) {}

TorchRunner::~TorchRunner() = default;

absl::StatusOr<std::unique_ptr<TorchRunner>> TorchRunner::Create(RunnerConfig config, TorchRunnerOptions options) {
  absl::Status usable = CheckOptions(config, options);
  if (usable.ok() && options.forward == nullptr) {
    usable = WithFailureKind(absl::InvalidArgumentError("runner: no forward function"), FailureKind::kInvalid);
  }
  if (!usable.ok()) return AgreeOnStatus(options.members, usable);
  return Make<TorchRunner>(std::move(config), std::move(options));
}

absl::Status TorchRunner::CheckOptions(const RunnerConfig& config, const TorchRunnerOptions& options) {
  return TorchTraining::CheckOptions(config, options);
}

absl::StatusOr<std::unique_ptr<TorchRunner>> TorchRunner::FromCheckpoint(
    const std::string& path, TorchRunnerOptions options, const std::function<void(RunnerConfig*)>& change) {
  absl::StatusOr<RunnerConfig> config = ReadRunnerConfig(path);
  if (!config.ok()) return WithFailureKind(config.status(), FailureKind::kInvalid);
  if (change != nullptr) change(&*config);
  config->resume.reset();
  config->pretrained.reset();
  config->auto_resume = false;
  options.resume_candidates.clear();
  ASSIGN_OR_RETURN(std::unique_ptr<TorchRunner> runner, Create(*std::move(config), std::move(options)));
  RETURN_IF_ERROR(runner->LoadCheckpoint(path));
  return runner;
}

absl::StatusOr<std::unique_ptr<TorchRunner>> TorchRunner::FromPretrained(RunnerConfig config, const std::string& path,
                                                                         TorchRunnerOptions options) {
  config.resume.reset();
  config.auto_resume = false;
  config.pretrained = path;
  options.resume_candidates.clear();
  ASSIGN_OR_RETURN(std::unique_ptr<TorchRunner> runner, Create(std::move(config), std::move(options)));
  RETURN_IF_ERROR(runner->Restore());
  return runner;
}

absl::Status TorchRunner::Build() {
  return training_->Build();
}

torch::nn::Module& TorchRunner::model() {
  return *training_->trained().model;
}

const Optimizer& TorchRunner::optimizer() const {
  return *training_->trained().optimizer;
}

OptimizerContainer& TorchRunner::optimizer_container() {
  return *training_->trained().container;
}

uint64_t TorchRunner::seed() const {
  return training_->seed();
}

int64_t TorchRunner::step_replays() const {
  const StepGraph* graph = training_->trained().graph.get();
  return graph == nullptr ? 0 : graph->replays();
}

int64_t TorchRunner::update_replays() const {
  return training_->trained().container->replays();
}

StepOutput TorchRunner::TrainStep(const Batch& batch) {
  StepOutput output = Forward(batch);
  Accumulate(output, batch);
  return output;
}

StepOutput TorchRunner::EvaluateStep(const Batch& batch) {
  return Forward(batch);
}

torch::Tensor TorchRunner::InferStep(const Batch& batch) {
  return training_->Predict(batch);
}

void TorchRunner::Backward(const torch::Tensor& loss) {
  loss.backward();
}

absl::StatusOr<bool> TorchRunner::OptimizerStep(const std::variant<double, torch::Tensor>& factor) {
  TrainedModel& trained = training_->trained();
  ASSIGN_OR_RETURN(const bool updated,
                   std::visit([&](const auto& one) { return trained.container->Step(one); }, factor));
  if (updated && trained.average != nullptr) trained.average->Update();
  return updated;
}

StepOutput TorchRunner::Forward(const Batch& batch) {
  return training_->Forward(batch);
}

void TorchRunner::Accumulate(const StepOutput& output, const Batch& batch) {
  training_->window().Accumulate(output, batch);
}

absl::Status TorchRunner::Reseat(const Membership& members) {
  RETURN_IF_ERROR(training_->Reseat(members));
  return run().Reseat(members);
}

absl::StatusOr<StepResult> TorchRunner::TrainUpdate() {
  return training_->Update();
}

absl::Status TorchRunner::EpochEnded(std::optional<double> metric) {
  RETURN_IF_ERROR(optimizer_container().StepEpoch(metric));
  training_->data().train().NextRound(state().step, /*more=*/!run().Done());
  return absl::OkStatus();
}

std::optional<std::string> TorchRunner::schedule_monitor() const {
  const LrScheduler* scheduler = training_->trained().scheduler.get();
  if (scheduler == nullptr || !scheduler->needs_metric()) return std::nullopt;
  return scheduler->monitor();
}

absl::StatusOr<std::map<std::string, double>> TorchRunner::EvaluateSplit(const std::string& split,
                                                                         int64_t max_batches) {
  return training_->evaluator().Run(split, max_batches);
}

absl::StatusOr<TrainingState> TorchRunner::CaptureState(bool model_only) {
  return training_->state().Capture(model_only);
}

absl::Status TorchRunner::LoadState(const RestoredState& restored, const StateParts& parts) {
  return training_->state().Load(restored, parts, state().step);
}

absl::Status TorchRunner::LoadPretrained(const std::string& path) {
  return training_->state().LoadPretrained(path);
}

int64_t TorchRunner::StepsPerEpoch() const {
  return training_->data().train().updates_per_pass();
}

double TorchRunner::EpochFraction() const {
  return training_->data().train().fraction();
}

std::vector<torch::Tensor> TorchRunner::ReplicatedWeights() const {
  return training_->trained().strategy->Replicated();
}

PartsWanted TorchRunner::WantedParts() const {
  return training_->state().Wanted();
}

absl::StatusOr<TensorMap> TorchRunner::Weights() {
  TrainedModel& trained = training_->trained();
  TensorMap weights;
  const auto copy = [](const torch::Tensor& tensor) {
    return tensor.detach().to(torch::kCPU, /*non_blocking=*/false, /*copy=*/true);
  };
  RETURN_IF_ERROR(trained.strategy->Gathered([&](const std::string& name, const torch::Tensor& whole) {
    return RunTorch("copying the weights", [&] { weights[name] = copy(whole); });
  }));
  for (const auto& [first, others] : TiedNames(*trained.model)) {
    for (const std::string& name : others) weights[name] = weights.at(first);
  }
  for (const auto& [name, buffer] : trained.model->named_buffers().pairs()) {
    if (buffer.defined()) weights[name] = copy(buffer);
  }
  return weights;
}

void TorchRunner::ReadStepMetrics(std::map<std::string, double>* metrics) {
  const OptimizerContainer& container = optimizer_container();
  (*metrics)["lr"] = optimizer().lr();
  if (container.grad_norm().defined()) (*metrics)["grad_norm"] = container.grad_norm().item<double>();
  if (config().skip_nonfinite_grad) (*metrics)["skipped_updates"] = static_cast<double>(state().skipped_updates);
  const RunData& data = training_->data();
  if (data.tolerates_damage()) (*metrics)["damaged_samples"] = static_cast<double>(data.damaged());
}

std::vector<std::pair<std::string, int64_t>> TorchRunner::MemoryParts() const {
  const TrainedModel& trained = training_->trained();
  std::vector<torch::Tensor> parameters, gradients, states;
  for (const auto& [name, buffer] : DistinctBuffers(*trained.model)) parameters.push_back(buffer);
  for (const OwnedParameter& one : trained.strategy->owned()) parameters.push_back(one.value);
  for (const torch::Tensor& parameter : trained.optimizer->parameters()) gradients.push_back(parameter.grad());
  for (const auto& [name, tensor] : trained.optimizer->StateTensors()) states.push_back(tensor);
  std::vector<std::pair<std::string, int64_t>> parts = {{"parameters and buffers", BytesOf(parameters)},
                                                        {"gradients", BytesOf(gradients)},
                                                        {"optimizer", BytesOf(states)}};
  if (trained.average == nullptr) return parts;
  parts.emplace_back("average of the weights", BytesOf(trained.average->averages()));
  return parts;
}

absl::Status TorchRunner::Infer(const std::string& split, const PredictionSink& sink, int64_t max_batches) {
  const absl::StatusOr<StatefulDataLoader*> loader = training_->data().EvaluationLoader(split);
  if (!loader.ok() && absl::IsNotFound(loader.status())) return Annotate(loader.status(), "infer");
  if (!training_->predicts() && typeid(*this) == typeid(TorchRunner))
    return absl::FailedPreconditionError("infer: the runner was made without `predict`");
  RETURN_IF_ERROR(Restore());  // collective: before what this rank alone may fail at
  if (!loader.ok()) return Annotate(loader.status(), "infer");
  return training_->inference().Run(*loader, sink, max_batches);
}

absl::StatusOr<torch::Tensor> TorchRunner::Infer(const std::string& split, int64_t max_batches) {
  std::vector<torch::Tensor> parts;
  RETURN_IF_ERROR(Infer(
      split,
      [&parts](const Batch&, torch::Tensor prediction) {
        parts.push_back(std::move(prediction));
        return absl::OkStatus();
      },
      max_batches));
  if (parts.empty()) return torch::empty({0});
  torch::Tensor all = torch::cat(parts);
  return all.dim() > 1 && all.size(-1) == 1 ? all.squeeze(-1) : all;
}

}  // namespace athanor
