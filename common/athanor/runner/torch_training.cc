#include "athanor/runner/torch_training.h"

#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include <limits>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/config_loader.h"
#include "athanor/config/derived_options.h"
#include "athanor/io/dtype_names.h"
#include "athanor/metrics/meter_sync.h"
#include "athanor/optim/gradients.h"
#include "athanor/parallel/launch_environment.h"
#include "athanor/runner/step/deterministic.h"
#include "athanor/runner/step/make_strategy.h"
#include "athanor/torch/activation_checkpoint.h"
#include "athanor/torch/host_memory.h"
#include "athanor/torch/module_tensors.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

absl::Status Invalid(const absl::Status& status) {
  return status.ok() ? status : WithFailureKind(status, FailureKind::kInvalid);
}

absl::Status Check(const RunnerConfig& config, const TorchRunnerOptions& options) {
  RETURN_IF_ERROR(ToStatus(CheckRunnerConfig(config)));
  if (options.model == nullptr && options.make_model == nullptr) return absl::InvalidArgumentError("runner: no model");
  if (options.model != nullptr && options.make_model != nullptr)
    return absl::InvalidArgumentError("runner: give a model or make_model, not both");
  for (const std::string& split : TrainSplitNames(config)) {
    if (options.datasets.contains(split)) continue;
    const std::string known = absl::StrJoin(
        options.datasets, ", ", [](std::string* text, const auto& item) { absl::StrAppend(text, item.first); });
    return absl::InvalidArgumentError(absl::StrCat("runner: no dataset '", split, "' to train on; given: ", known));
  }
  for (const auto& [name, dataset] : options.datasets) {
    if (dataset == nullptr) return absl::InvalidArgumentError(absl::StrCat("runner: dataset '", name, "' is null"));
  }
  if (config.optim.type.empty()) return absl::InvalidArgumentError("runner: optim.type is not set");
  if (options.members.world_size() == 1 && !options.alone) RETURN_IF_ERROR(CheckLaunchedAlone());
  return WithAxesOf(config, options.members).status();
}

// The norm of gradients of which this rank has parts.
torch::Tensor NormOverParts(DataStrategy& strategy) {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> divided, whole;
  for (const OwnedParameter& one : strategy.owned()) (one.divided ? divided : whole).push_back(one.value);
  torch::Tensor squares = GradNorm(divided).to(torch::kFloat64).square().to(divided.front().device());
  strategy.SumOverParts(squares);
  squares += GradNorm(whole).to(squares.options()).square();
  return squares.sqrt().to(torch::kFloat32);
}

}  // namespace

TorchTraining::TorchTraining(TrainingRun* run, TorchSteps* steps, TorchRunnerOptions options)
    : run_(run),
      context_(&run->context()),
      options_(std::move(options)),
      data_(context_, std::move(options_.datasets)),
      window_(context_, &trained_, &data_, steps, &run->state().measures()),
      closure_(&window_, &trained_),
      meter_sync_(MakeMeterSync(context_->members)),
      evaluator_(context_, &trained_, &data_, steps, [this] { return MakeMetrics(); }),
      inference_(context_, &trained_, steps),
      state_(context_, &trained_, &data_, &seed_) {
  trained_.model = std::move(options_.model);
  trained_.graphs = std::move(options_.graphs);
  trained_.scale = GradientScale(context_->config.precision == "fp16");
}

absl::Status TorchTraining::CheckOptions(const RunnerConfig& config, const TorchRunnerOptions& options) {
  return Invalid(Check(config, options));
}

absl::Status TorchTraining::Build() {
  const RunnerConfig& config = context_->config;
  if (config.threads.has_value()) at::set_num_threads(static_cast<int>(*config.threads));
  if (config.deterministic) RETURN_IF_ERROR(Invalid(UseDeterministicAlgorithms(context_->device)));
  if (context_->device.is_cpu()) {
    KeepHostMemory();
    ForgetStartupCode();
  }
  if (trained_.model != nullptr && config.seed.has_value() && GeneratorsAreUnseeded()) {
    context_->notes.Tell(Note::kRemark,
                         "`seed` does not cover the model's first weights: they were made before; give make_model");
  }
  RETURN_IF_ERROR(ResolveSeed());
  RETURN_IF_ERROR(context_->Together("making the model", [this] { return MakeModel(); }));
  RETURN_IF_ERROR(context_->Together("preparing the data", [this] { return data_.Open(seed_); }));
  RETURN_IF_ERROR(context_->Together("moving the model to its device", [this] { return MoveModel(); }));
  RETURN_IF_ERROR(Reseat(context_->members));
  RETURN_IF_ERROR(context_->Together("preparing the training", [this] { return BuildTraining(); }));
  RETURN_IF_ERROR(run_->Prepare(data_.evaluated()));
  const Optimizer& optimizer = *trained_.optimizer;
  const std::string rate =
      trained_.scheduler == nullptr ? absl::StrCat("constant ", optimizer.lr()) : trained_.scheduler->Text();
  context_->notes.Tell(Note::kFact, absl::StrCat("optimizer ", optimizer.type(), ", learning rate: ", rate));
  return absl::OkStatus();
}

absl::Status TorchTraining::MoveModel() {
  trained_.model->to(context_->device);
  trained_.model->train();
  return absl::OkStatus();
}

// Rank 0's weights and buffers are everybody's afterwards.
absl::Status TorchTraining::Reseat(const Membership& given) {
  ASSIGN_OR_RETURN(const Membership members, WithAxesOf(context_->config, given));
  context_->members = members;
  RETURN_IF_ERROR(window_.Reseat(members));
  closure_.Reseat(members);
  RETURN_IF_ERROR(meter_sync_->Reseat(members));
  RETURN_IF_ERROR(context_->Together("dividing the data", [&] { return data_.Reseat(members); }));
  RETURN_IF_ERROR(SeatStrategy(members));
  if (trained_.graph != nullptr) BuildStepGraph();  // the one of before exchanges with the ranks of before
  return absl::OkStatus();
}

absl::Status TorchTraining::SeatStrategy(const Membership& members) {
  if (trained_.strategy == nullptr) {
    trained_.strategy =
        MakeDataStrategy(context_->config, members.topology(), trained_.model.get(), options_.find_unused_parameters);
    const MixedPrecisionConfig& types = context_->config.fsdp.mp_policy;
    if (trained_.strategy->divides()) {
      if (types.param_dtype.has_value()) trained_.input_type = DtypeOfOption(*types.param_dtype);
      if (types.output_dtype.has_value()) trained_.output_type = DtypeOfOption(*types.output_dtype);
    }
  }
  return trained_.strategy->Reseat(members);
}

void TorchTraining::BuildStepGraph() {
  trained_.graph = std::make_unique<StepGraph>(
      trained_.graphs,
      StepGraph::Options{.warmup = context_->config.compile.warmup, .exchanges = context_->members.several()});
}

absl::Status TorchTraining::BuildTraining() {
  const EmaConfig& ema = context_->config.ema;
  if (ema.enabled)
    trained_.average = std::make_unique<ModelAverage>(*trained_.model, trained_.strategy->owned(), ema.decay);
  RETURN_IF_ERROR(BuildAcceleration());
  RETURN_IF_ERROR(BuildOptimizer());
  const absl::Status metrics = run_->state().measures().MakeMetrics([this] { return MakeMetrics(); });
  return Invalid(Annotate(metrics, "runner: metrics"));
}

absl::StatusOr<StepResult> TorchTraining::Update() {
  StepResult result;
  const bool closure = trained_.optimizer->needs_closure();
  RETURN_IF_ERROR(closure ? closure_.Run(&result) : window_.Run(run_->ReadOutFollows(), &result));
  result.epoch_ended = data_.train().Advance(run_->state().train.step + (result.updated ? 1 : 0));
  window_.Settle();
  return result;
}

StepOutput TorchTraining::Forward(const Batch& batch) const {
  TORCH_CHECK(options_.forward != nullptr, "the runner has no forward function, and the step is not overridden");
  StepOutput output;
  {
    RECORD_USER_SCOPE("forward");
    AutocastScope autocast(context_->config.precision, context_->device);
    Fp8Scope fp8(trained_.fp8);
    output = options_.forward(batch);
  }
  TORCH_CHECK(output.loss.defined(), "the forward function returned no loss");
  if (trained_.output_type.has_value()) output.loss = output.loss.to(*trained_.output_type);
  TORCH_CHECK(output.loss.numel() == 1, "the forward function returned a loss of shape ", output.loss.sizes(),
              "; it must be one number");
  for (const auto& [name, value] : output.metrics) {
    TORCH_CHECK(value.defined() && value.numel() == 1, "metric '", name, "' must be one number");
  }
  return output;
}

torch::Tensor TorchTraining::Predict(const Batch& batch) const {
  TORCH_CHECK(predicts(), "the runner has no predict function, and the step is not overridden");
  AutocastScope autocast(context_->config.precision, context_->device);
  Fp8Scope fp8(trained_.fp8);
  return options_.predict(batch);
}

absl::Status TorchTraining::MakeModel() {
  if (trained_.model != nullptr) return absl::OkStatus();
  RETURN_IF_ERROR(RunTorch("making the model", [&] { trained_.model = options_.make_model(); }));
  return trained_.model != nullptr ? absl::OkStatus()
                                   : Invalid(absl::InvalidArgumentError("runner: make_model gave no model"));
}

absl::Status TorchTraining::ResolveSeed() {
  int64_t seed = context_->config.seed.value_or(-1);
  if (seed < 0) {
    std::random_device random;
    seed = static_cast<int64_t>(random() & 0x7fffffffu);
    if (context_->members.group() != nullptr) {
      const int64_t mine = context_->members.is_main() ? seed : std::numeric_limits<int64_t>::min() + 1;
      ASSIGN_OR_RETURN(const Agreement agreement, context_->members.group()->AllAgree({mine}));
      seed = agreement.max[0];
    }
  }
  seed_ = static_cast<uint64_t>(seed);
  SeedGenerators(seed_ + static_cast<uint64_t>(context_->members.rank()));
  return absl::OkStatus();
}

absl::Status TorchTraining::BuildAcceleration() {
  if (const ActivationCheckpointConfig& again = context_->config.activation_checkpoint; again.enabled) {
    const absl::StatusOr<int64_t> blocks = CheckpointChildren(*trained_.model, again.modules, again.every);
    if (!blocks.ok()) return Invalid(Annotate(blocks.status(), "activation_checkpoint.modules"));
    if (*blocks == 0)
      return Invalid(absl::InvalidArgumentError(
          "activation_checkpoint: the model has no torch::nn::Sequential; nothing would run again"));
  }
  if (UsesFp8(context_->config)) {
    RETURN_IF_ERROR(Invalid(CheckFp8(context_->device)));
    if (CountFp8Layers(*trained_.model) == 0) {
      return Invalid(absl::InvalidArgumentError(
          "precision: fp8: the model has no Fp8Linear layer whose features are multiples of 16; nothing would be in 8 "
          "bits"));
    }
    trained_.fp8 = ParseFp8Recipe(context_->config.fp8.recipe);
    context_->config.precision = "fp8";
  }
  if (UsesStepGraph(context_->config)) {
    if (trained_.graphs == nullptr) {
      absl::StatusOr<std::shared_ptr<DeviceGraphs>> graphs = MakeDeviceGraphs(context_->device);
      if (!graphs.ok()) return Invalid(Annotate(graphs.status(), "compile.enable"));
      trained_.graphs = *std::move(graphs);
    }
    BuildStepGraph();
  }
  return absl::OkStatus();
}

NamedTensors TorchTraining::Owned() const {
  NamedTensors named;
  for (const OwnedParameter& one : trained_.strategy->owned()) named.emplace_back(one.name, one.value);
  return named;
}

absl::Status TorchTraining::BuildOptimizer() {
  absl::StatusOr<std::unique_ptr<Optimizer>> optimizer = MakeOptimizer(context_->config.optim, Owned());
  if (!optimizer.ok()) return Invalid(optimizer.status());
  trained_.optimizer = *std::move(optimizer);
  for (const std::string& note : trained_.optimizer->notes()) context_->notes.Tell(Note::kProblem, note);
  ScheduleBudget budget;
  budget.steps = context_->config.steps.has_value()
                     ? *context_->config.steps
                     : context_->config.epochs.value_or(1) * data_.train().updates_per_pass();
  budget.epochs = context_->config.epochs.value_or((budget.steps + data_.train().updates_per_pass() - 1) /
                                                   data_.train().updates_per_pass());
  absl::StatusOr<std::unique_ptr<LrScheduler>> scheduler =
      LrScheduler::Make(context_->config.sched, budget, trained_.optimizer.get());
  if (!scheduler.ok()) return Invalid(scheduler.status());
  trained_.scheduler = *std::move(scheduler);
  OptimizerContainerOptions options{
      .max_grad_value = context_->config.max_grad_value,
      .max_grad_norm = context_->config.max_grad_norm,
      .skip_nonfinite_grad = context_->config.skip_nonfinite_grad || trained_.scale.enabled(),
      .zero_grad = [this] { trained_.DropGradients(); },
      .graphs = UsesStepGraph(context_->config) ? trained_.graphs : nullptr,
      .graph_warmup = context_->config.compile.warmup};
  // Where every rank holds the same mean gradients, all come to the same answer without asking each other.
  if (trained_.strategy->divides()) {
    std::map<std::string, Optimizer::Part> parts;
    for (const OwnedParameter& one : trained_.strategy->owned()) {
      if (one.divided) parts[one.name] = {one.shape, one.begin};
    }
    trained_.optimizer->UseParts(parts, [this](torch::Tensor value) { trained_.strategy->SumOverParts(value); });
    options.norm = [this](const std::vector<torch::Tensor>&) { return NormOverParts(*trained_.strategy); };
    options.any_rank = [this](bool mine) -> absl::StatusOr<bool> {
      ASSIGN_OR_RETURN(const Agreement agreement, context_->members.group()->AllAgree({mine ? 1 : 0}));
      return agreement.max[0] == 1;
    };
  }
  trained_.container = std::make_unique<OptimizerContainer>(trained_.optimizer.get(), std::move(options));
  if (trained_.scheduler != nullptr) trained_.container->Add(trained_.scheduler.get());
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<MetricSet>> TorchTraining::MakeMetrics() const {
  if (options_.metrics == nullptr) return nullptr;
  return options_.metrics(meter_sync_);
}

}  // namespace athanor
