#include "athanor/runner/base_runner.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/alias_files.h"
#include "athanor/runner/step/make_strategy.h"
#include "athanor/runner/training_run.h"
#include "athanor/torch/status.h"

namespace athanor {

namespace {

// The ranks as the configuration lays them out; the factories have checked that it can.
BaseRunnerOptions Seated(const RunnerConfig& config, BaseRunnerOptions options) {
  options.members = WithAxesOf(config, options.members).value_or(options.members);
  return options;
}

}  // namespace

BaseRunner::BaseRunner(RunnerConfig config, BaseRunnerOptions options, const torch::Device& device) {
  BaseRunnerOptions seated = Seated(config, std::move(options));
  run_ = std::make_unique<TrainingRun>(std::move(config), std::move(seated), device, static_cast<Trainee*>(this));
}

BaseRunner::~BaseRunner() = default;

absl::StatusOr<RunResult> BaseRunner::Train() {
  return run_->Train();
}

absl::StatusOr<std::map<std::string, double>> BaseRunner::Evaluate(const std::string& split, int64_t max_batches) {
  RETURN_IF_ERROR(Restore());
  return EvaluateSplit(split, max_batches);
}

absl::StatusOr<std::map<std::string, double>> BaseRunner::Evaluate() {
  std::map<std::string, double> all;
  for (const std::string& split : run_->evaluation().splits()) {
    ASSIGN_OR_RETURN(const auto means, Evaluate(split));
    for (const auto& [name, value] : means) all[absl::StrCat(split, ".", name)] = value;
  }
  return all;
}

absl::Status BaseRunner::Restore() {
  return run_->Restore();
}

absl::Status BaseRunner::LoadCheckpoint(const std::string& path, const std::vector<std::string>& parts) {
  return run_->resume().Load(path, parts, &run_->state());
}

absl::StatusOr<SaveDecision> BaseRunner::SaveCheckpoint(const SaveArguments& arguments) {
  if (!IsAliasName(arguments.name)) {
    return absl::InvalidArgumentError(absl::StrCat("save checkpoint: name '", arguments.name,
                                                   "'; allowed: letters, digits, '.', '_', '-', not '.' first"));
  }
  RETURN_IF_ERROR(Annotate(run_->resume().error(), "save checkpoint: the state is not whole"));
  const bool is_best = run_->evaluation().score().since_best() == 0;
  return run_->saver().Save(arguments, run_->Now(is_best), /*must_wait=*/true);
}

absl::Status BaseRunner::SaveSeedCheckpoint(const std::string& name) {
  if (state().step > 0 || state().epoch > 0) {
    run_->context().notes.Tell(Note::kProblem,
                               absl::StrCat("the seed checkpoint '", name, "' was saved after step ", state().step));
  }
  return SaveCheckpoint({.name = name, .save_best = false, .force = true, .history = false}).status();
}

absl::Status BaseRunner::WaitForCheckpoints() {
  return run_->saver().Drain();
}

CheckpointStats BaseRunner::checkpoint_stats() const {
  return run_->saver().checkpoints().stats();
}

absl::StatusOr<TrainingState> BaseRunner::StateDict() {
  RETURN_IF_ERROR(run_->resume().error());
  ASSIGN_OR_RETURN(TrainingState state, run_->state().Capture(/*model_only=*/false, {}));
  RETURN_IF_ERROR(RunTorch("copying the state", [&] {
    for (TensorMap* tensors : {&state.replicated, &state.per_rank}) {
      for (auto& [name, tensor] : *tensors) tensor = tensor.detach().clone();
    }
    for (auto& [name, sharded] : state.sharded) {
      for (TensorPart& part : sharded.parts) part.values = part.values.detach().clone();
    }
  }));
  return state;
}

absl::Status BaseRunner::LoadStateDict(const TrainingState& state) {
  RestoredState restored;
  restored.state = state;
  restored.world_size = run_->context().members.world_size();
  restored.same_world = true;
  run_->evaluation().Forget();
  return run_->resume().LoadState(restored, &run_->state());
}

RunnerState BaseRunner::CaptureRunnerState() const {
  RunnerState state{.train = run_->state().train, .elastic = run_->state().elastic, .rng = {}};
  state.rng.Capture(run_->context().device);
  return state;
}

const TrainState& BaseRunner::state() const {
  return run_->state().train;
}

const ProgressReport& BaseRunner::progress() const {
  return run_->context().progress.report();
}

const RunnerConfig& BaseRunner::config() const {
  return run_->context().config;
}

const RunResults* BaseRunner::results() const {
  const RunRecorder* recorder = run_->state().recorder();
  return recorder == nullptr ? nullptr : &recorder->results();
}

}  // namespace athanor
