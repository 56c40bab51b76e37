#include "athanor/runner/evaluation.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/config_loader.h"
#include "athanor/parallel/process_group.h"
#include "athanor/torch/status.h"

namespace athanor {

Evaluation::Evaluation(RunContext* context, Trainee* trainee, std::vector<std::string> splits)
    : context_(context), trainee_(trainee), splits_(std::move(splits)), score_(context->config.score, splits_) {}

absl::Status Evaluation::Check() const {
  const std::string known = absl::StrJoin(splits_, ", ");
  const auto& split = context_->config.score.split;
  if (split.has_value() && !split->empty() && std::find(splits_.begin(), splits_.end(), *split) == splits_.end()) {
    return WithFailureKind(
        absl::InvalidArgumentError(absl::StrCat("score.split: '", *split, "' is not evaluated; allowed: ", known)),
        FailureKind::kInvalid);
  }
  if (trainee_->schedule_monitor().has_value() && splits_.empty()) {
    return WithFailureKind(absl::InvalidArgumentError("sched.type: reduce_on_plateau wants a metric after each pass, "
                                                      "and no split is evaluated"),
                           FailureKind::kInvalid);
  }
  return absl::OkStatus();
}

bool Evaluation::Due(const StepResult& update, int64_t step) const {
  if (splits_.empty() || Knows(step)) return false;
  const int64_t interval = context_->config.evaluate.interval;
  return interval == 0 ? update.epoch_ended : update.updated && step % interval == 0;
}

absl::StatusOr<Evaluation::Outcome> Evaluation::Run(TrainState* state, bool tolerant) {
  Telemetry::Clock clock;
  ProgressReport& report = context_->progress.report();
  ASSIGN_OR_RETURN(const bool repeatable, MeasureSplits(state->step, tolerant));
  for (const auto& [name, value] : results_) report.metrics[name] = value;
  step_ = state->step;
  RETURN_IF_ERROR(CheckNames(tolerant));
  is_best_ = score_.Observe(state->step, results_);
  if (const auto key = MonitoredKey(); key.has_value()) state->monitored = Measured(*key);
  const std::optional<double> patience = context_->config.patience;
  if (patience.has_value() && score_.since_best() > *patience) StopEarly(state);
  report.evaluate_seconds += clock.Lap();
  return Outcome{.is_best = is_best_, .repeatable = repeatable};
}

void Evaluation::StopEarly(TrainState* state) {
  state->stopped_early = true;
  std::string best = "none was finite";
  if (score_.best().has_value()) best = absl::StrCat("best ", *score_.best(), " at step ", score_.best_step());
  context_->notes.Tell(Note::kEvent, absl::StrCat("stopped early after step ", state->step, ": ", score_.since_best(),
                                                  " evaluations without a better ", score_.key(), "; ", best));
}

// Fills results_. True: see Outcome::repeatable.
absl::StatusOr<bool> Evaluation::MeasureSplits(int64_t step, bool tolerant) {
  if (offered_.has_value() && offered_->step == step) {
    results_ = std::exchange(offered_, std::nullopt)->results;
    return true;
  }
  results_.clear();
  TensorMap before, after;
  RETURN_IF_ERROR(context_->Alone("random states", [&] { CaptureGenerators(context_->device, &before); }));
  bool repeatable = true;
  for (const std::string& split : splits_) {
    absl::StatusOr<Results> means = trainee_->EvaluateSplit(split, /*max_batches=*/-1);
    if (!means.ok()) {
      // A finished training is not thrown away because its last evaluation failed.
      if (!tolerant || FailureKindOf(means.status()) == FailureKind::kPeerLost) return means.status();
      context_->notes.Tell(Note::kProblem,
                           absl::StrCat("the last evaluation of '", split, "' failed: ", means.status().message()));
      repeatable = false;
      continue;
    }
    for (const auto& [name, value] : *means) {
      results_[absl::StrCat(split, ".", name)] = value;
      repeatable = repeatable && std::isfinite(value);
    }
  }
  RETURN_IF_ERROR(context_->Alone("random states", [&] {
    CaptureGenerators(context_->device, &after);
    for (const auto& [name, generator] : before) repeatable = repeatable && torch::equal(generator, after.at(name));
  }));
  if (context_->members.group() == nullptr) return repeatable;
  ASSIGN_OR_RETURN(const Agreement agreement, context_->members.group()->AllAgree({repeatable ? 1 : 0}));
  return agreement.min[0] == 1;
}

std::optional<std::string> Evaluation::MonitoredKey() const {
  std::optional<std::string> key = trainee_->schedule_monitor();
  if (!key.has_value()) return std::nullopt;
  if (key->empty()) return score_.key();
  if (!absl::StrContains(*key, ".")) key = absl::StrCat(score_.key().substr(0, score_.key().find('.')), ".", *key);
  return key;
}

std::optional<double> Evaluation::Measured(const std::string& key) const {
  const Results& live = context_->progress.report().metrics;
  for (const Results* metrics : {&std::as_const(results_), &live}) {
    if (const auto found = metrics->find(key); found != metrics->end()) return found->second;
  }
  return std::nullopt;
}

// What a name of the configuration means is known once something was measured. Before the end a wrong one is an error,
// and not a run without a best checkpoint or with a learning rate that never changes.
absl::Status Evaluation::CheckNames(bool tolerant) {
  if (results_.empty() || std::exchange(names_checked_, true)) return absl::OkStatus();
  const std::pair<const char*, std::optional<std::string>> names[] = {{"score.name", score_.key()},
                                                                      {"sched.monitor", MonitoredKey()}};
  for (const auto& [option, key] : names) {
    if (!key.has_value() || key->empty() || Measured(*key).has_value()) continue;
    std::vector<std::string> measured;
    for (const auto& [name, value] : results_) measured.push_back(name);
    const std::string text =
        absl::StrCat(option, ": nothing is measured as '", *key, "'; measured: ", absl::StrJoin(measured, ", "));
    if (!tolerant) return WithFailureKind(absl::InvalidArgumentError(text), FailureKind::kInvalid);
    context_->notes.Tell(Note::kProblem, text);
  }
  return absl::OkStatus();
}

void Evaluation::Offer(int64_t step, const Results& results, const nlohmann::json& config) {
  if (!config.is_object() || config.value("evaluate", nlohmann::json()) != ToJson(context_->config).at("evaluate"))
    return;
  for (const std::string& split : splits_) {
    const auto first = results.lower_bound(split + ".");
    if (first == results.end() || !absl::StartsWith(first->first, split + ".")) return;
  }
  for (const std::optional<std::string>& key : {std::optional(score_.key()), MonitoredKey()}) {
    if (key.has_value() && !results.contains(*key) && !context_->progress.report().metrics.contains(*key)) return;
  }
  offered_ = Known{.step = step, .results = results};
}

absl::Status Evaluation::AgreeOnOffer() {
  if (context_->members.group() == nullptr) return absl::OkStatus();
  // A manifest may have been written anew between two ranks' reading.
  ASSIGN_OR_RETURN(const Agreement known, context_->members.group()->AllAgree({offered_.has_value() ? 1 : 0}));
  if (known.min[0] == 0) offered_.reset();
  return absl::OkStatus();
}

}  // namespace athanor
