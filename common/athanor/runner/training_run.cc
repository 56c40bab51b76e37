#include "athanor/runner/training_run.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/derived_options.h"
#include "athanor/parallel/patience.h"
#include "athanor/runner/watch/memory_report.h"
#include "athanor/runner/watch/watchdog.h"
#include "athanor/torch/status.h"

namespace athanor {

TrainingRun::TrainingRun(RunnerConfig config, BaseRunnerOptions options, const torch::Device& device, Trainee* trainee)
    : context_(std::move(config), options.members, device, options.hooks),
      options_(std::move(options)),
      trainee_(trainee),
      measures_(TrainSplitNames(context_.config)),
      state_(&context_, trainee, &measures_),
      files_(&context_, {.workspace = std::move(options_.workspace),
                         .workspace_from_config = options_.workspace_from_config,
                         .committer = options_.committer,
                         .checkpoint_root = options_.checkpoint_root}),
      journal_(&context_, trainee, &measures_, &files_),
      resume_(&context_, trainee, std::move(options_.resume_candidates)),
      boundary_(&context_) {}

absl::Status TrainingRun::Prepare(const std::vector<std::string>& evaluated) {
  Publish(RunnerPhase::kStarting);
  evaluation_ = std::make_unique<Evaluation>(&context_, trainee_, evaluated);
  RETURN_IF_ERROR(files_.Find());
  RETURN_IF_ERROR(context_.Together("the run's files", [&]() -> absl::Status {
    RETURN_IF_ERROR(files_.Open(evaluated, measures_.names()));
    RETURN_IF_ERROR(resume_.FindCandidates(files_.checkpoint_root(), files_.workspace()));
    RETURN_IF_ERROR(evaluation_->Check());
    ASSIGN_OR_RETURN(auto checkpoints, RunCheckpoints::Create(context_.config, Checkpointing()));
    saver_ = std::make_unique<Saver>(
        &context_, std::move(checkpoints),
        [this](bool model_only, const PendingWork& pending) { return state_.Capture(model_only, pending); });
    return absl::OkStatus();
  }));
  RETURN_IF_ERROR(Reseat(context_.members));
  state_.Keep(&evaluation_->score(), files_.recorder());
  const int64_t total = TotalUpdates(context_.config, trainee_->StepsPerEpoch());
  journal_.Start(total);
  context_.progress.report().total_steps = total;
  return absl::OkStatus();
}

absl::Status TrainingRun::Reseat(const Membership& members) {
  context_.members = members;
  RETURN_IF_ERROR(boundary_.Reseat(members));
  return context_.Together("seating the checkpoints", [&] { return saver_->checkpoints().Reseat(members); });
}

RunCheckpointsOptions TrainingRun::Checkpointing() {
  RunCheckpointsOptions options;
  options.members = context_.members;
  options.committer = files_.committer();
  options.root = files_.checkpoint_root();
  options.candidates = resume_.candidates();
  options.storage_root = options_.storage_root;
  options.storage = options_.storage;
  options.on_bytes = [this](const char* doing, int64_t bytes) { context_.progress.Advance(doing, bytes); };
  options.parts = [this] { return trainee_->WantedParts(); };
  options.passed_over = [this](const ResumeCandidate& candidate) { return resume_.PassedOver(candidate); };
  options.note = [this](const std::string& text) { context_.notes.Tell(Note::kProblem, text); };
  return options;
}

absl::StatusOr<RunResult> TrainingRun::Train() {
  if (trained_) return absl::FailedPreconditionError("runner: Train() was called before; make a new runner");
  if (context_.hooks == nullptr && options_.handle_signals) {
    // Somebody else's handlers stay theirs.
    if (auto supervisor = Supervisor::Install(); supervisor.ok()) supervisor_ = *std::move(supervisor);
  }
  absl::StatusOr<RunResult> result = absl::UnknownError("training");
  if (const absl::Status thrown = context_.Alone("training", [&] { result = Loop(); }); !thrown.ok()) result = thrown;
  context_.progress.StopWatching();
  Close(result);
  supervisor_.reset();
  return result;
}

absl::StatusOr<RunResult> TrainingRun::Loop() {
  RETURN_IF_ERROR(Begin());
  while (!Done()) {
    Telemetry::Clock clock;
    const absl::StatusOr<StepResult> step = Update();
    if (!step.ok()) {
      context_.LeaveGroup();
      return step.status();
    }
    context_.progress.AddStep(step->times, clock.Lap(), step->samples);  // evaluations and saves have their own figures
    state_.train.Advance(step->updated, step->epoch_ended, step->samples, context_.config.accum_steps);
    ASSIGN_OR_RETURN(const bool stop, AtBoundary(*step));  // votes, evaluation, checkpoint
    Publish(RunnerPhase::kTraining);
    if (stop && !Done()) return Drain();
  }
  return Finish();
}

// Up to the first update: what was left to do where the run resumes comes first.
absl::Status TrainingRun::Begin() {
  RETURN_IF_ERROR(Restore());
  trained_ = true;
  Watchdog::Excuse excuse;
  if (context_.hooks != nullptr) excuse = [hooks = context_.hooks] { return hooks->ServiceIsAway(); };
  context_.progress.Watch(std::make_unique<Watchdog>(options_.hang_timeout, options_.on_hang, std::move(excuse)));
  Publish(RunnerPhase::kTraining);
  if (files_.recorder() != nullptr)
    files_.recorder()->Begin(resume_.record_positions(), state_.train.step, evaluation_->offered());
  const PendingWork pending = state_.TakePending();
  if (!pending.evaluation) return absl::OkStatus();
  RETURN_IF_ERROR(EvaluateAndEndPass(!evaluation_->none(), pending.pass_end));
  return SaveAfterEvaluation(/*due=*/false);
}

absl::StatusOr<StepResult> TrainingRun::Update() {
  if (files_.profiler() != nullptr) files_.profiler()->Step(state_.train.step);
  absl::StatusOr<StepResult> step = trainee_->TrainUpdate();
  const std::optional<int64_t> interval = context_.config.gc.interval;
  if (step.ok() && interval.has_value() && (boundary_.round() + 1) % *interval == 0)
    RETURN_IF_ERROR(RunTorch("returning memory", [&] { ReturnFreedMemory(context_.device); }));
  if (FailureKindOf(step.status()) != FailureKind::kOutOfMemory) return step;
  const std::string report = MemoryText(trainee_->MemoryParts(), context_.device);
  if (files_.recorder() != nullptr) files_.recorder()->Note("ERROR", absl::StrCat("out of memory: ", report));
  return Annotate(step.status(), absl::StrCat("memory of rank ", context_.members.rank(), ": ", report));
}

bool TrainingRun::Done() const {
  if (state_.train.stopped_early) return true;
  const RunnerConfig& config = context_.config;
  return config.steps.has_value() ? state_.train.step >= *config.steps
                                  : state_.train.epoch >= config.epochs.value_or(1);
}

// Whether the ranks have agreed to stop here.
absl::StatusOr<bool> TrainingRun::AtBoundary(const StepResult& step) {
  const int64_t now = state_.train.step;
  context_.progress.FinishStep(now);
  const bool evaluate = evaluation_->Due(step, now);
  const bool save = saver_->Due(state_.train, step.epoch_ended);
  const bool asked = context_.hooks != nullptr ? context_.hooks->StopRequested()
                                               : supervisor_ != nullptr && supervisor_->StopRequested();
  ASSIGN_OR_RETURN(const StepVerdict verdict,
                   boundary_.Agree(step, {.step = now, .last = Done(), .needed = evaluate || save, .stop = asked},
                                   &measures_, [this] { return trainee_->ReplicatedWeights(); }));
  if (step.updated && journal_.ReadOutAt(now)) RETURN_IF_ERROR(journal_.ReadOut(state_.train));
  if (evaluate && (save || Done())) {
    Saver::Moment moment = Now(/*is_best=*/false);
    moment.pending.pass_end = step.epoch_ended;
    RETURN_IF_ERROR(saver_->SaveBeforeEvaluation(moment, /*last=*/Done()));
  }
  RETURN_IF_ERROR(EvaluateAndEndPass(evaluate, step.epoch_ended));
  RETURN_IF_ERROR(SaveAfterEvaluation(save));
  return verdict.stop;
}

absl::Status TrainingRun::EvaluateAndEndPass(bool evaluate, bool epoch_ended) {
  if (evaluate) RETURN_IF_ERROR(EvaluateAndRecord(/*tolerant=*/Done()));
  if (!epoch_ended) return absl::OkStatus();
  if (evaluation_->none()) RETURN_IF_ERROR(journal_.AddRow(state_.train, {}, /*evaluated=*/false, false));
  return trainee_->EpochEnded(std::exchange(state_.train.monitored, std::nullopt));
}

absl::Status TrainingRun::EvaluateAndRecord(bool tolerant) {
  Publish(RunnerPhase::kEvaluating);
  ASSIGN_OR_RETURN(const Evaluation::Outcome found, evaluation_->Run(&state_.train, tolerant));
  RETURN_IF_ERROR(journal_.AddRow(state_.train, evaluation_->results(), /*evaluated=*/true, found.is_best));
  saver_->ReportEvaluation(state_.train.step, evaluation_->results(), found.is_best, found.repeatable);
  return absl::OkStatus();
}

// What was not saved before the evaluation: a best one off the cadence, one for which there was no room.
absl::Status TrainingRun::SaveAfterEvaluation(bool due) {
  const bool is_best = evaluation_->BestAt(state_.train.step);
  if (Done() || saver_->checkpoints().Saved(state_.train.step)) return absl::OkStatus();  // the last one is Finish()'s
  if (!due && !is_best) return absl::OkStatus();
  return saver_->Save({}, Now(is_best), /*must_wait=*/false).status();
}

Saver::Moment TrainingRun::Now(bool is_best) const {
  return {.state = state_.train,
          .epoch_fraction = trainee_->EpochFraction(),
          .finite = boundary_.finite(),
          .is_best = is_best,
          .results = evaluation_->Knows(state_.train.step) ? &evaluation_->results() : nullptr,
          .pending = {}};
}

absl::StatusOr<RunResult> TrainingRun::Drain() {
  context_.progress.Leaving("asked to leave at a step boundary");
  const Patience patience(context_.members, options_.commit_patience);
  RETURN_IF_ERROR(
      saver_->Save({.force = true}, Now(evaluation_->BestAt(state_.train.step)), /*must_wait=*/true).status());
  RETURN_IF_ERROR(Annotate(saver_->Drain(), "the checkpoint before leaving"));
  Publish(RunnerPhase::kFinishing);
  return Result(RunOutcome::kPreempted);
}

absl::StatusOr<RunResult> TrainingRun::Finish() {
  Publish(RunnerPhase::kFinishing);
  const Patience patience(context_.members, options_.commit_patience);
  if (!evaluation_->Knows(state_.train.step) && !evaluation_->none()) {
    RETURN_IF_ERROR(saver_->SaveBeforeEvaluation(Now(/*is_best=*/false), /*last=*/true));
    RETURN_IF_ERROR(EvaluateAndRecord(/*tolerant=*/true));
  }
  if (evaluation_->none()) RETURN_IF_ERROR(journal_.AddRow(state_.train, {}, /*evaluated=*/false, false));
  RETURN_IF_ERROR(
      saver_->Save({.last_step = true}, Now(evaluation_->BestAt(state_.train.step)), /*must_wait=*/true).status());
  if (const absl::Status drained = saver_->Drain(); !drained.ok()) {
    if (context_.config.checkpoint.fail_on_error) return Annotate(drained, "the last checkpoint");
    context_.notes.Tell(Note::kProblem, absl::StrCat("the last checkpoint: ", drained.message()));
  }
  if (ProcessGroup* group = context_.members.group(); group != nullptr) {
    // Whoever hosts the store must not leave before the others are through.
    RETURN_IF_ERROR(group->Barrier(group->timeout()));
  }
  Publish(RunnerPhase::kFinishing);
  return Result(RunOutcome::kFinished);
}

RunResult TrainingRun::Result(RunOutcome outcome) const {
  RunResult result;
  result.outcome = outcome;
  result.step = state_.train.step;
  result.epoch = state_.train.epoch;
  result.metrics = context_.progress.report().metrics;
  result.best_score = evaluation_->score().best();
  result.best_step = evaluation_->score().best_step();
  result.notes = context_.notes.problems();
  for (std::string& problem : files_.Problems()) result.notes.push_back(std::move(problem));
  return result;
}

void TrainingRun::Close(const absl::StatusOr<RunResult>& result) {
  saver_->RefreshStats();
  const bool finished = result.ok() && result->outcome == RunOutcome::kFinished;
  files_.Close(!result.ok() ? "failed"
               : finished   ? "finished"
                            : "preempted",
               result.ok() ? "" : std::string(result.status().message()),
               context_.progress.Refresh(state_.train, trainee_->EpochFraction()));
}

void TrainingRun::Publish(RunnerPhase phase) {
  // Their counters are read where somebody looks: at every change of phase, and now and then.
  if (saver_ != nullptr && (phase != RunnerPhase::kTraining || boundary_.round() % 16 == 0)) saver_->RefreshStats();
  context_.progress.Publish(phase, state_.train, trainee_->EpochFraction());
}

absl::Status TrainingRun::Restore() {
  if (!resume_.done()) Publish(RunnerPhase::kRestoring);
  return resume_.Restore(&saver_->checkpoints(), &state_, evaluation_.get());
}

}  // namespace athanor
