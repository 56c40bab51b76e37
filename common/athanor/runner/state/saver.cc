#include "athanor/runner/state/saver.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"

namespace athanor {

Saver::Saver(RunContext* context, std::unique_ptr<RunCheckpoints> checkpoints, Capture capture)
    : context_(context), checkpoints_(std::move(checkpoints)), capture_(std::move(capture)) {}

bool Saver::Due(const TrainState& state, bool epoch_ended) const {
  return checkpoints_->Due(state.step, state.epoch, epoch_ended);
}

absl::StatusOr<SaveDecision> Saver::Save(SaveArguments arguments, const Moment& moment, bool must_wait) {
  const TrainState& state = moment.state;
  arguments.must_wait = must_wait;
  SaveDecision decision = checkpoints_->Decide(arguments, {.epochs = state.epoch,
                                                           .step = state.step,
                                                           .epoch_fraction = moment.epoch_fraction,
                                                           .is_best = moment.is_best,
                                                           .finite = moment.finite});
  if (checkpoints_->enabled() && !moment.finite) {
    context_->notes.Tell(Note::kProblem, absl::StrCat("step ", state.step, " was not saved: its loss is not finite"));
  }
  if (!decision.save()) return decision;
  RefreshStats();
  context_->progress.Publish(RunnerPhase::kSaving, state, moment.epoch_fraction);
  SaveRequest request;
  request.step = state.step;
  request.aliases = decision.aliases;
  request.is_best = moment.is_best && arguments.save_best;
  if (moment.results != nullptr) request.metrics = *moment.results;
  RETURN_IF_ERROR(checkpoints_->Save(decision, [&] { return capture_(decision.model_only, moment.pending); }, request));
  return decision;
}

absl::Status Saver::SaveBeforeEvaluation(Moment moment, bool last) {
  if (!moment.finite || (last && !checkpoints_->CanSaveBeforeLastEvaluation())) return absl::OkStatus();
  moment.pending.evaluation = true;
  moment.is_best = false;
  const SaveArguments arguments{.save_best = false, .force = last, .history = !last};
  RETURN_IF_ERROR(Save(arguments, moment, /*must_wait=*/last).status());
  if (!last) return absl::OkStatus();
  const absl::Status drained = checkpoints_->Drain();
  return context_->config.checkpoint.fail_on_error ? drained : absl::OkStatus();
}

void Saver::ReportEvaluation(int64_t step, const std::map<std::string, double>& results, bool is_best,
                             bool repeatable) {
  SaveRequest request{.step = step, .metrics = results, .is_best = is_best};
  if (is_best) request.aliases = {"best"};
  request.evaluated = repeatable;
  checkpoints_->ReportEvaluation(request);
}

void Saver::RefreshStats() {
  ProgressReport& report = context_->progress.report();
  const CheckpointStats stats = checkpoints_->stats();
  if (stats.failed > report.checkpoint_failures) {
    context_->notes.Tell(Note::kProblem, absl::StrCat("not saved: ", stats.last_error));
  } else if (stats.unnamed > unnamed_) {
    context_->notes.Tell(Note::kProblem, stats.last_error);
  }
  unnamed_ = stats.unnamed;
  report.checkpoint_stall_seconds = stats.stall_seconds;
  report.checkpoint_failures = stats.failed;
  report.checkpoint_skipped = stats.skipped;
  report.checkpoint_error = stats.last_error;
}

}  // namespace athanor
