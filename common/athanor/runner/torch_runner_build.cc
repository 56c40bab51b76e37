// How a TorchRunner is put together.
#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>
#include <random>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/config_loader.h"
#include "athanor/config/derived_options.h"
#include "athanor/parallel/launch_environment.h"
#include "athanor/runner/state/run_checkpoints.h"
#include "athanor/runner/step/deterministic.h"
#include "athanor/runner/torch_runner.h"
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
  const int world = options.process_group == nullptr ? 1 : options.process_group->world_size();
  if (world == 1 && !options.alone) RETURN_IF_ERROR(CheckLaunchedAlone());
  if (world != options.topology.world_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("runner: the topology has ", options.topology.world_size(), " ranks, the process group ", world));
  }
  return absl::OkStatus();
}

}  // namespace

TorchRunner::TorchRunner(RunnerConfig config, TorchRunnerOptions options)
    : BaseRunner(std::move(config), std::move(options)),
      model_(std::move(options.model)),
      make_model_(std::move(options.make_model)),
      datasets_(std::move(options.datasets)),
      forward_(std::move(options.forward)),
      predict_(std::move(options.predict)),
      make_metrics_(std::move(options.metrics)),
      device_(options.device),
      find_unused_(options.find_unused_parameters || config_.comm.find_unused_parameters),
      graphs_(std::move(options.graphs)),
      gradient_scale_(config_.precision == "fp16") {}

TorchRunner::~TorchRunner() = default;

absl::StatusOr<std::unique_ptr<TorchRunner>> TorchRunner::Create(RunnerConfig config, TorchRunnerOptions options) {
  absl::Status usable = CheckOptions(config, options);
  if (usable.ok() && options.forward == nullptr)
    usable = Invalid(absl::InvalidArgumentError("runner: no forward function"));
  if (!usable.ok()) return AgreeOnStatus(options.process_group, usable);
  return Make<TorchRunner>(std::move(config), std::move(options));
}

absl::Status TorchRunner::CheckOptions(const RunnerConfig& config, const TorchRunnerOptions& options) {
  return Invalid(Check(config, options));
}

absl::StatusOr<std::unique_ptr<TorchRunner>> TorchRunner::FromCheckpoint(
    const std::string& path, TorchRunnerOptions options, const std::function<void(RunnerConfig*)>& change) {
  absl::StatusOr<RunnerConfig> config = ReadRunnerConfig(path);
  if (!config.ok()) return Invalid(config.status());
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

absl::StatusOr<std::unique_ptr<MetricSet>> TorchRunner::MakeMetrics() const {
  if (make_metrics_ == nullptr) return nullptr;
  const bool alone = options_.process_group == nullptr || options_.process_group->world_size() == 1;
  return make_metrics_(alone ? nullptr : MakeMeterSync(*options_.process_group));
}

absl::Status TorchRunner::Build() {
  if (config_.threads.has_value()) at::set_num_threads(static_cast<int>(*config_.threads));
  if (config_.deterministic) RETURN_IF_ERROR(Invalid(UseDeterministicAlgorithms(device_)));
  if (device_.is_cpu()) {
    KeepHostMemory();
    ForgetStartupCode();
  }
  const bool unseeded = model_ != nullptr && config_.seed.has_value() && GeneratorsAreUnseeded();
  if (unseeded) Notice("`seed` does not cover the model's first weights: they were made before; give make_model");
  RETURN_IF_ERROR(ResolveSeed());
  RETURN_IF_ERROR(Together("making the model", [this] { return MakeModel(); }));
  std::vector<std::string> evaluated;
  RETURN_IF_ERROR(Together("preparing the data", [&] { return BuildData(&evaluated); }));
  RETURN_IF_ERROR(BuildModel());
  RETURN_IF_ERROR(Together("preparing the training", [this] { return BuildTraining(); }));
  RETURN_IF_ERROR(Prepare(std::move(evaluated)));
  Inform(absl::StrCat("optimizer ", optimizer_->type(), ", learning rate: ",
                      scheduler_ == nullptr ? absl::StrCat("constant ", optimizer_->lr()) : scheduler_->Text()));
  return absl::OkStatus();
}

absl::Status TorchRunner::BuildData(std::vector<std::string>* evaluated) {
  RETURN_IF_ERROR(Invalid(CheckLoaderSplits()));
  ASSIGN_OR_RETURN(*evaluated, EvaluateSplits());
  TolerateDamage();
  ASSIGN_OR_RETURN(loader_, BuildTrainLoaders());
  for (const std::string& name : *evaluated) {
    ASSIGN_OR_RETURN(evaluation_loaders_[name], BuildLoader(name, /*train=*/false));
  }
  return absl::OkStatus();
}

absl::Status TorchRunner::BuildTraining() {
  RETURN_IF_ERROR(BuildAcceleration());
  RETURN_IF_ERROR(BuildOptimizer());
  absl::StatusOr<std::unique_ptr<MetricSet>> metrics = MakeMetrics();
  if (!metrics.ok()) return Invalid(Annotate(metrics.status(), "runner: metrics"));
  meters_.SetMetrics(*std::move(metrics));
  return absl::OkStatus();
}

absl::Status TorchRunner::CheckLoaderSplits() const {
  const std::vector<std::string> train = TrainSplitNames(config_);
  for (const auto& [split, options] : config_.dataloader.splits) {
    if (!datasets_.contains(split)) {
      return absl::InvalidArgumentError(
          absl::StrCat("dataloader.", split, ": no such split; the splits are: ", SplitNames()));
    }
    if (std::find(train.begin(), train.end(), split) != train.end()) continue;
    if (options.shuffle.value_or(false) || options.drop_last.value_or(false)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "dataloader.", split, options.shuffle.value_or(false) ? ".shuffle" : ".drop_last",
          ": found true; allowed: false, since the split is only evaluated: every sample of it, in order"));
    }
  }
  return absl::OkStatus();
}

std::string TorchRunner::SplitNames() const {
  std::string names;
  for (const auto& [name, dataset] : datasets_) absl::StrAppend(&names, names.empty() ? "" : ", ", name);
  return names;
}

void TorchRunner::TolerateDamage() {
  for (auto& [name, dataset] : datasets_) {
    const DataLoaderConfig config = config_.dataloader.For(name);
    if (config.on_damage != "skip") continue;
    tolerant_[name] = std::make_shared<TolerantDataset>(dataset, TolerantOptions{.max_damaged = config.max_damaged});
    dataset = tolerant_[name];
  }
  const bool several = options_.process_group != nullptr && options_.process_group->world_size() > 1;
  for (const std::string& split : TrainSplitNames(config_))
    uneven_ranks_ = uneven_ranks_ || (several && datasets_.at(split)->may_leave_out());
}

absl::Status TorchRunner::MakeModel() {
  if (model_ != nullptr) return absl::OkStatus();
  RETURN_IF_ERROR(RunTorch("making the model", [&] { model_ = make_model_(); }));
  return model_ != nullptr ? absl::OkStatus() : Invalid(absl::InvalidArgumentError("runner: make_model gave no model"));
}

absl::Status TorchRunner::ResolveSeed() {
  int64_t seed = config_.seed.value_or(-1);
  if (seed < 0) {
    std::random_device random;
    seed = static_cast<int64_t>(random() & 0x7fffffffu);
    if (options_.process_group != nullptr) {
      const int64_t mine = options_.topology.is_main() ? seed : std::numeric_limits<int64_t>::min() + 1;
      ASSIGN_OR_RETURN(const Agreement agreement, options_.process_group->AllAgree({mine}));
      seed = agreement.max[0];
    }
  }
  seed_ = static_cast<uint64_t>(seed);
  SeedGenerators(seed_ + static_cast<uint64_t>(options_.topology.rank()));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> TorchRunner::EvaluateSplits() const {
  std::vector<std::string> splits = config_.evaluate.splits;
  for (const std::string& split : splits) {
    if (datasets_.count(split) > 0) continue;
    return Invalid(absl::InvalidArgumentError(
        absl::StrCat("evaluate.splits: no split '", split, "'; the splits are: ", SplitNames())));
  }
  if (!splits.empty()) return splits;
  for (const auto& [name, dataset] : datasets_) {
    const std::vector<std::string> train = TrainSplitNames(config_);
    if (std::find(train.begin(), train.end(), name) == train.end()) splits.push_back(name);
  }
  return splits;
}

absl::StatusOr<std::unique_ptr<StatefulDataLoader>> TorchRunner::BuildLoader(const std::string& split,
                                                                             bool train) const {
  const DataLoaderConfig config = config_.dataloader.For(split);
  LoaderOptions options;
  options.batch_size = config.batch_size;
  options.shuffle = train && config.shuffle.value_or(true);
  options.drop_last = train && config.drop_last;
  options.num_workers = static_cast<int>(config.num_workers);
  options.prefetch_factor = static_cast<int>(config.prefetch_factor);
  options.in_order = config.in_order;
  options.persistent_workers = config.persistent_workers;
  options.snapshot_every_n_steps = config.snapshot_every_n_steps;
  options.pin_memory = config.pin_memory.value_or(device_.is_cuda());
  options.timeout = config.timeout;
  options.seed = config.seed.has_value() ? static_cast<uint64_t>(*config.seed) : seed_;
  options.world_size = options_.topology.data_parallel_size();
  options.rank = options_.topology.data_parallel_rank();
  options.padding = train ? SamplerPadding::kRepeat : SamplerPadding::kNone;
  absl::StatusOr<std::unique_ptr<StatefulDataLoader>> loader = StatefulDataLoader::Make(datasets_.at(split), options);
  if (!loader.ok()) return Invalid(Annotate(loader.status(), absl::StrCat("dataloader '", split, "'")));
  return loader;
}

absl::StatusOr<std::unique_ptr<TrainSplits>> TorchRunner::BuildTrainLoaders() const {
  std::map<std::string, std::unique_ptr<StatefulDataLoader>> loaders;
  for (const std::string& split : TrainSplitNames(config_)) {
    ASSIGN_OR_RETURN(loaders[split], BuildLoader(split, /*train=*/true));
  }
  auto splits = TrainSplits::Make(std::move(loaders),
                                  {.accum_steps = config_.accum_steps, .total_steps = config_.steps.value_or(0)});
  if (!splits.ok()) return Invalid(splits.status());
  return splits;
}

// Of a split that nobody evaluates in training it is made when it is asked for.
absl::StatusOr<StatefulDataLoader*> TorchRunner::EvaluationLoader(const std::string& split) {
  if (!datasets_.contains(split))
    return absl::NotFoundError(absl::StrCat("no split '", split, "'; the splits are: ", SplitNames()));
  std::unique_ptr<StatefulDataLoader>& loader = evaluation_loaders_[split];
  if (loader == nullptr) {
    ASSIGN_OR_RETURN(loader, BuildLoader(split, /*train=*/false));
  }
  return loader.get();
}

absl::Status TorchRunner::BuildModel() {
  RETURN_IF_ERROR(Together("moving the model to its device", [&] {
    model_->to(device_);
    model_->train();
    return absl::OkStatus();
  }));
  if (options_.process_group != nullptr && options_.process_group->world_size() > 1) {
    GradientReducerOptions reducer;
    reducer.bucket_bytes = static_cast<int64_t>(config_.comm.bucket_mb * (1 << 20));
    reducer.find_unused_parameters = find_unused_;
    ASSIGN_OR_RETURN(reducer_, GradientReducer::Create(*model_, options_.process_group, reducer));
  }
  if (config_.ema.enabled) average_ = std::make_unique<ModelAverage>(*model_, config_.ema.decay);
  return absl::OkStatus();
}

absl::Status TorchRunner::BuildAcceleration() {
  if (UsesFp8(config_)) {
    RETURN_IF_ERROR(Invalid(CheckFp8(device_)));
    if (CountFp8Layers(*model_) == 0) {
      return Invalid(absl::InvalidArgumentError(
          "precision: fp8: the model has no Fp8Linear layer whose features are multiples of 16; nothing would be in 8 "
          "bits"));
    }
    fp8_ = ParseFp8Recipe(config_.fp8.recipe);
    config_.precision = "fp8";
  }
  if (UsesStepGraph(config_)) {
    if (graphs_ == nullptr) {
      absl::StatusOr<std::shared_ptr<DeviceGraphs>> graphs = MakeDeviceGraphs(device_);
      if (!graphs.ok()) return Invalid(Annotate(graphs.status(), "compile.enable"));
      graphs_ = *std::move(graphs);
    }
    graph_ = std::make_unique<StepGraph>(
        graphs_, StepGraph::Options{.warmup = config_.compile.warmup, .exchanges = reducer_ != nullptr});
  }
  return absl::OkStatus();
}

absl::Status TorchRunner::BuildOptimizer() {
  absl::StatusOr<std::unique_ptr<Optimizer>> optimizer = MakeOptimizer(config_.optim, DistinctParameters(*model_));
  if (!optimizer.ok()) return Invalid(optimizer.status());
  optimizer_ = *std::move(optimizer);
  for (const std::string& note : optimizer_->notes()) Note(note);
  ScheduleBudget budget;
  budget.steps = config_.steps.has_value() ? *config_.steps : config_.epochs.value_or(1) * StepsPerEpoch();
  budget.epochs = config_.epochs.value_or((budget.steps + StepsPerEpoch() - 1) / StepsPerEpoch());
  absl::StatusOr<std::unique_ptr<LrScheduler>> scheduler = LrScheduler::Make(config_.sched, budget, optimizer_.get());
  if (!scheduler.ok()) return Invalid(scheduler.status());
  scheduler_ = *std::move(scheduler);
  // Every rank holds the same mean gradients: all come to the same answer without asking each other.
  container_ = std::make_unique<OptimizerContainer>(
      optimizer_.get(),
      OptimizerContainerOptions{.max_grad_value = config_.max_grad_value,
                                .max_grad_norm = config_.max_grad_norm,
                                .skip_nonfinite_grad = config_.skip_nonfinite_grad || gradient_scale_.enabled(),
                                .zero_grad = [this] { DropGradients(); },
                                .graphs = UsesStepGraph(config_) ? graphs_ : nullptr,
                                .graph_warmup = config_.compile.warmup});
  if (scheduler_ != nullptr) container_->Add(scheduler_.get());
  return absl::OkStatus();
}

std::optional<std::string> TorchRunner::schedule_monitor() const {
  if (scheduler_ == nullptr || !scheduler_->needs_metric()) return std::nullopt;
  return scheduler_->monitor();
}

int64_t TorchRunner::StepsPerEpoch() const {
  return loader_->updates_per_pass();
}

double TorchRunner::EpochFraction() const {
  return loader_->fraction();
}

}  // namespace athanor
