#include "athanor/runner/base_runner.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/derived_options.h"
#include "athanor/parallel/agree_on_status.h"
#include "athanor/runner/watch/memory_report.h"
#include "athanor/torch/status.h"

namespace athanor {

BaseRunner::BaseRunner(RunnerConfig config, BaseRunnerOptions options)
    : config_(std::move(config)),
      options_(std::move(options)),
      excluded_(config_.checkpoint.exclude_from_loading.begin(), config_.checkpoint.exclude_from_loading.end()) {}

BaseRunner::~BaseRunner() = default;

absl::Status BaseRunner::Prepare(std::vector<std::string> evaluate_splits) {
  Report(RunnerPhase::kStarting);
  evaluate_splits_ = std::move(evaluate_splits);
  RETURN_IF_ERROR(OpenWorkspace());
  score_ = std::make_unique<ScoreTracker>(config_.score, evaluate_splits_);
  agreement_ = std::make_unique<StepAgreement>(options_.process_group, !device().is_cpu());
  ASSIGN_OR_RETURN(replica_check_, ReplicaCheck::Create(options_.process_group, config_.comm.replica_check_interval));
  if (!replica_check_.off_because().empty()) Note(replica_check_.off_because());
  ASSIGN_OR_RETURN(
      checkpoints_,
      RunCheckpoints::Create(config_, {.topology = options_.topology,
                                       .group = options_.process_group,
                                       .committer = options_.committer,
                                       .root = options_.checkpoint_root,
                                       .candidates = options_.resume_candidates,
                                       .storage_root = options_.storage_root,
                                       .storage = options_.storage,
                                       .on_bytes = [this](const char* doing, int64_t bytes) { Advance(doing, bytes); },
                                       .passed_over = [this](const ResumeCandidate& one) { return PassedOver(one); },
                                       .note = [this](std::string text) { Note(text); }}));
  log_interval_ = LogInterval(config_, TotalSteps());
  progress_.total_steps = TotalSteps();
  progress_.loss = std::nan("");
  return absl::OkStatus();
}

absl::StatusOr<RunResult> BaseRunner::Train() {
  if (trained_) return absl::FailedPreconditionError("runner: Train() was called before; make a new runner");
  if (options_.hooks == nullptr && options_.handle_signals) {
    // Somebody else's handlers stay theirs.
    if (auto supervisor = Supervisor::Install(); supervisor.ok()) supervisor_ = *std::move(supervisor);
  }
  absl::StatusOr<RunResult> result = absl::UnknownError("training");
  if (const absl::Status thrown = RunTorch("training", [&] { result = Loop(); }); !thrown.ok()) {
    result = thrown;
    LeaveGroup();
  }
  CloseWorkspace(result);
  supervisor_.reset();
  return result;
}

absl::StatusOr<RunResult> BaseRunner::Loop() {
  RETURN_IF_ERROR(Restore());
  trained_ = true;
  watchdog_ = std::make_unique<Watchdog>(options_.hang_timeout, options_.on_hang);
  watching_.store(watchdog_.get(), std::memory_order_release);
  Report(RunnerPhase::kTraining);
  if (recorder_ != nullptr) recorder_->Begin(record_positions_, state_.step, known_evaluation_.has_value());
  if (std::exchange(state_.before_evaluation, false)) {
    RETURN_IF_ERROR(EvaluateAndEndPass(!evaluate_splits_.empty(), std::exchange(state_.before_pass_end, false)));
    RETURN_IF_ERROR(SaveAfterEvaluation(/*due=*/false));
  }
  while (!Done()) {
    Telemetry::Clock clock;
    const absl::StatusOr<StepResult> updated = WatchedUpdate();
    if (!updated.ok()) {
      LeaveGroup();
      return updated.status();
    }
    const StepResult& step = *updated;
    telemetry_.Add(step.times, clock.Lap(), step.samples);  // evaluations and saves have figures of their own
    state_.step += step.updated ? 1 : 0;
    state_.epoch += step.epoch_ended ? 1 : 0;
    state_.micro_step += config_.accum_steps;  // a short window counts as a whole one
    state_.samples += step.samples;
    RETURN_IF_ERROR(AtBoundary(step));  // votes, evaluation, checkpoint
    Report(RunnerPhase::kTraining);
    if (verdict_.stop && !Done()) return Drain();
  }
  return Finish();
}

absl::Status BaseRunner::Together(const char* what, const std::function<absl::Status()>& alone) const {
  absl::Status done;
  const absl::Status thrown = RunTorch(what, [&] { done = alone(); });
  return AgreeOnStatus(options_.process_group, thrown.ok() ? done : thrown);
}

void BaseRunner::LeaveGroup() const {
  if (options_.process_group != nullptr) options_.process_group->Abort();
}

absl::StatusOr<StepResult> BaseRunner::WatchedUpdate() {
  if (profiler_ != nullptr) profiler_->Step(state_.step);
  absl::StatusOr<StepResult> step = TrainUpdate();
  if (step.ok() && config_.gc.interval.has_value() && (round_ + 1) % *config_.gc.interval == 0)
    RETURN_IF_ERROR(RunTorch("returning memory", [&] { ReturnFreedMemory(device()); }));
  if (FailureKindOf(step.status()) != FailureKind::kOutOfMemory) return step;
  const std::string report = MemoryText(MemoryParts(), device());
  if (recorder_ != nullptr) recorder_->Note("ERROR", absl::StrCat("out of memory: ", report));
  return Annotate(step.status(), absl::StrCat("memory of rank ", options_.topology.rank(), ": ", report));
}

bool BaseRunner::Done() const {
  if (state_.stopped_early) return true;
  return config_.steps.has_value() ? state_.step >= *config_.steps : state_.epoch >= config_.epochs.value_or(1);
}

int64_t BaseRunner::TotalSteps() const {
  return TotalUpdates(config_, StepsPerEpoch());
}

bool BaseRunner::EvaluationDue(const StepResult& step) const {
  if (evaluate_splits_.empty() || evaluated_step_ == state_.step) return false;
  if (config_.evaluate.interval == 0) return step.epoch_ended;
  return step.updated && state_.step % config_.evaluate.interval == 0;
}

absl::Status BaseRunner::AtBoundary(const StepResult& step) {
  if (watchdog_ != nullptr) watchdog_->Feed("step", state_.step);
  if (step.updated) skipped_in_a_row_ = 0;
  if (!step.updated && !step.scale_search) ++skipped_in_a_row_;
  state_.skipped_updates += step.updated ? 0 : 1;
  const bool evaluate = EvaluationDue(step);
  const bool save = checkpoints_->Due(state_.step, state_.epoch, step.epoch_ended);
  ASSIGN_OR_RETURN(verdict_, Agree(evaluate || save));
  if (step.updated && log_interval_ > 0 && state_.step % log_interval_ == 0) RETURN_IF_ERROR(ReadOut());
  evaluation_is_best_ = false;
  if (evaluate && (save || Done())) RETURN_IF_ERROR(SaveBeforeEvaluation(step.epoch_ended, /*last=*/Done()));
  RETURN_IF_ERROR(EvaluateAndEndPass(evaluate, step.epoch_ended));
  return SaveAfterEvaluation(save);
}

absl::Status BaseRunner::EvaluateAndEndPass(bool evaluate, bool epoch_ended) {
  if (evaluate) RETURN_IF_ERROR(EvaluateAndRecord(/*tolerate_failure=*/Done()));
  if (!epoch_ended) return absl::OkStatus();
  if (evaluate_splits_.empty()) RETURN_IF_ERROR(RecordTraining());
  return EpochEnded(std::exchange(state_.monitored, std::nullopt));
}

// Whatever the evaluation does to this process, the training is on disk; what it measures is attached afterwards.
absl::Status BaseRunner::SaveBeforeEvaluation(bool epoch_ended, bool last) {
  if (verdict_.nonfinite_in_a_row > 0 || (last && !checkpoints_->CanSaveBeforeLastEvaluation()))
    return absl::OkStatus();
  state_.before_evaluation = true;
  state_.before_pass_end = epoch_ended;
  const SaveArguments arguments{.save_best = false, .force = last, .history = !last};
  const absl::Status saved = Save(arguments, /*is_best=*/false, /*must_wait=*/last).status();
  state_.before_evaluation = state_.before_pass_end = false;
  RETURN_IF_ERROR(saved);
  if (!last) return absl::OkStatus();
  const absl::Status drained = checkpoints_->Drain();
  return config_.checkpoint.fail_on_error ? drained : absl::OkStatus();
}

// What was not saved before the evaluation: a best one off the cadence, one for which there was no room.
absl::Status BaseRunner::SaveAfterEvaluation(bool due) {
  if (Done() || checkpoints_->Saved(state_.step)) return absl::OkStatus();  // the last checkpoint is Finish()'s
  if (!due && !evaluation_is_best_) return absl::OkStatus();
  return Save({}, evaluation_is_best_, /*must_wait=*/false).status();
}

absl::StatusOr<StepVerdict> BaseRunner::Agree(bool before_save) {
  ++round_;
  // Between votes nothing is known to the other ranks: the last verdict must not stop this one alone.
  if (!agreement_->Due(round_) && !before_save && !Done() && !replica_check_.NeedsVote(round_))
    return StepVerdict{.nonfinite_total = verdict_.nonfinite_total};
  RETURN_IF_ERROR(RunTorch("reading the losses", [&] { meters_.Collect(); }));
  StepVote vote;
  vote.stop = StopAsked();
  vote.nonfinite_in_a_row = std::max(meters_.nonfinite_in_a_row(), skipped_in_a_row_);
  vote.nonfinite_total = meters_.nonfinite_total();
  vote.step_seconds = telemetry_.step_seconds();
  MarkExchange();
  const bool compare = replica_check_.Due(round_, Done());
  if (compare) {
    RETURN_IF_ERROR(RunTorch("comparing the ranks' weights", [&] { replica_check_.Look(ReplicatedWeights(), &vote); }));
  }
  ASSIGN_OR_RETURN(const StepVerdict verdict, agreement_->Vote(vote, round_));
  progress_.nonfinite_losses = verdict.nonfinite_total;
  if (verdict.nonfinite_in_a_row >= config_.max_nonfinite_losses) {
    return WithFailureKind(
        absl::FailedPreconditionError(absl::StrCat(
            "training: ", verdict.nonfinite_in_a_row, " losses or gradients in a row were not finite, up to step ",
            state_.step, " (max_nonfinite_losses is ", config_.max_nonfinite_losses, ")")),
        FailureKind::kNanLoss);
  }
  if (compare) RETURN_IF_ERROR(replica_check_.Judge(vote, verdict, round_, state_.step));
  return verdict;
}

absl::StatusOr<double> BaseRunner::SumOverRanks(double mine) {
  if (options_.process_group == nullptr) return mine;
  ASSIGN_OR_RETURN(const std::vector<double> sum, options_.process_group->AllReduceSum(std::vector<double>{mine}));
  return sum[0];
}

absl::Status BaseRunner::ReadOut() {
  ASSIGN_OR_RETURN(const auto means, meters_.Means(options_.process_group));
  ASSIGN_OR_RETURN(progress_.total_samples_per_second, SumOverRanks(telemetry_.samples_per_second()));
  for (const auto& [name, value] : means) progress_.metrics[absl::StrCat("train.", name)] = value;
  if (const auto loss = means.find("loss"); loss != means.end()) progress_.loss = loss->second;
  const absl::Status read = RunTorch("reading metrics", [&] {
    ReadStepMetrics(&progress_.metrics);
    const MemoryUse memory = ReadMemoryUse(device());
    progress_.memory_bytes = memory.resident;
    progress_.memory_bytes_peak = memory.resident_peak;
    progress_.device_bytes = memory.allocated;
    progress_.device_bytes_peak = memory.allocated_peak;
    progress_.device_reserved_bytes_peak = memory.reserved_peak;
  });
  if (!read.ok()) LeaveGroup();
  RETURN_IF_ERROR(read);
  if (recorder_ != nullptr) recorder_->Step(Refreshed());
  return absl::OkStatus();
}

bool BaseRunner::StopAsked() const {
  if (options_.hooks != nullptr) return options_.hooks->StopRequested();
  return supervisor_ != nullptr && supervisor_->StopRequested();
}

void BaseRunner::Note(std::string text) {
  if (recorder_ != nullptr) recorder_->Note("WARNING", text);
  notes_.push_back(std::move(text));
}

void BaseRunner::Inform(const std::string& text) {
  if (!options_.topology.is_main()) return;
  if (recorder_ != nullptr) recorder_->Note("INFO", text);
  if (options_.hooks != nullptr) options_.hooks->OnNote(text);
}

absl::StatusOr<RunResult> BaseRunner::Drain() {
  if (heartbeat_ != nullptr) heartbeat_->Terminating("asked to leave at a step boundary");
  RETURN_IF_ERROR(Save({.force = true}, LatestIsBest(), /*must_wait=*/true).status());
  RETURN_IF_ERROR(Annotate(checkpoints_->Drain(), "the checkpoint before leaving"));
  Report(RunnerPhase::kFinishing);
  return Result(RunOutcome::kPreempted);
}

absl::StatusOr<RunResult> BaseRunner::Finish() {
  Report(RunnerPhase::kFinishing);
  if (evaluated_step_ != state_.step && !evaluate_splits_.empty()) {
    RETURN_IF_ERROR(SaveBeforeEvaluation(/*epoch_ended=*/false, /*last=*/true));
    RETURN_IF_ERROR(EvaluateAndRecord(/*tolerate_failure=*/true));
  }
  if (evaluate_splits_.empty()) RETURN_IF_ERROR(RecordTraining());
  RETURN_IF_ERROR(Save({.last_step = true}, LatestIsBest(), /*must_wait=*/true).status());
  if (const absl::Status drained = checkpoints_->Drain(); !drained.ok()) {
    if (config_.checkpoint.fail_on_error) return Annotate(drained, "the last checkpoint");
    Note(absl::StrCat("the last checkpoint: ", drained.message()));
  }
  if (options_.process_group != nullptr) {
    // Whoever hosts the store must not leave before the others are through.
    RETURN_IF_ERROR(options_.process_group->Barrier(options_.process_group->timeout()));
  }
  Report(RunnerPhase::kFinishing);
  return Result(RunOutcome::kFinished);
}

RunResult BaseRunner::Result(RunOutcome outcome) const {
  RunResult result;
  result.outcome = outcome;
  result.step = state_.step;
  result.epoch = state_.epoch;
  result.metrics = progress_.metrics;
  result.best_score = score_->best();
  result.best_step = score_->best_step();
  result.notes = notes_;
  if (profiler_ != nullptr && !profiler_->error().ok())
    result.notes.push_back(absl::StrCat("profiling ended: ", profiler_->error().message()));
  if (recorder_ != nullptr && !recorder_->error().ok()) {
    result.notes.push_back(absl::StrCat("run files: ", recorder_->error().message()));
  }
  return result;
}

const ProgressReport& BaseRunner::Refreshed() {
  progress_.step = state_.step;
  progress_.samples = state_.samples;
  progress_.skipped_updates = state_.skipped_updates;
  progress_.micro_step = state_.micro_step;
  progress_.restarts = elastic_.restarts;
  progress_.epoch = static_cast<double>(state_.epoch) + EpochFraction();
  progress_.step_seconds = telemetry_.step_seconds();
  progress_.samples_per_second = telemetry_.samples_per_second();
  progress_.times = telemetry_.times();
  progress_.phase_progress = {advanced_.load(std::memory_order_relaxed), exchanges_.load(std::memory_order_relaxed)};
  const int64_t left = progress_.total_steps - state_.step;
  progress_.eta_seconds =
      left >= 0 && progress_.step_seconds > 0 ? static_cast<double>(left) * progress_.step_seconds : -1;
  return progress_;
}

void BaseRunner::MarkEvaluated() {
  Advance("evaluation", 1);
  ++progress_.evaluated_batches;
  if (heartbeat_ != nullptr) heartbeat_->Update(progress_);
}

void BaseRunner::Advance(const char* doing, int64_t units) {
  const int64_t done = advanced_.fetch_add(units, std::memory_order_relaxed) + units;
  if (Watchdog* watchdog = watching_.load(std::memory_order_acquire)) watchdog->Feed(doing);
  if (options_.hooks != nullptr) options_.hooks->OnPhaseProgress({done, exchanges_.load(std::memory_order_relaxed)});
}

void BaseRunner::MarkExchange() {
  const int64_t exchanges = exchanges_.fetch_add(1, std::memory_order_relaxed) + 1;
  if (options_.hooks != nullptr)
    options_.hooks->OnPhaseProgress({advanced_.load(std::memory_order_relaxed), exchanges});
}

void BaseRunner::RefreshCheckpointStats() {
  if (checkpoints_ == nullptr) return;
  const CheckpointStats stats = checkpoints_->stats();
  if (stats.failed > progress_.checkpoint_failures) {
    Note(absl::StrCat("not saved: ", stats.last_error));
  } else if (stats.unnamed > unnamed_checkpoints_) {
    Note(stats.last_error);
  }
  unnamed_checkpoints_ = stats.unnamed;
  progress_.checkpoint_stall_seconds = stats.stall_seconds;
  progress_.checkpoint_failures = stats.failed;
  progress_.checkpoint_skipped = stats.skipped;
  progress_.checkpoint_error = stats.last_error;
}

void BaseRunner::Report(RunnerPhase phase) {
  if (options_.hooks == nullptr && heartbeat_ == nullptr && recorder_ == nullptr) return;
  progress_.phase = phase;
  Refreshed();
  if (phase != RunnerPhase::kTraining || round_ % 16 == 0) RefreshCheckpointStats();
  if (heartbeat_ != nullptr) heartbeat_->Update(progress_);
  if (options_.hooks != nullptr) options_.hooks->OnProgress(progress_);
}

}  // namespace athanor
