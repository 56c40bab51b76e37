// What a BaseRunner evaluates, and what follows from it: the best score, early stopping, rows of results.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "athanor/runner/base_runner.h"
#include "athanor/torch/status.h"

namespace athanor {

absl::StatusOr<std::map<std::string, double>> BaseRunner::Evaluate(const std::string& split, int64_t max_batches) {
  RETURN_IF_ERROR(Restore());
  return EvaluateSplit(split, max_batches);
}

absl::StatusOr<std::map<std::string, double>> BaseRunner::Evaluate() {
  std::map<std::string, double> all;
  for (const std::string& split : evaluate_splits_) {
    ASSIGN_OR_RETURN(const auto means, Evaluate(split));
    for (const auto& [name, value] : means) all[absl::StrCat(split, ".", name)] = value;
  }
  return all;
}

absl::Status BaseRunner::EvaluateAndRecord(bool tolerate_failure) {
  Report(RunnerPhase::kEvaluating);
  Telemetry::Clock clock;
  ASSIGN_OR_RETURN(const bool repeatable, EvaluateSplits(tolerate_failure));
  for (const auto& [name, value] : evaluation_) progress_.metrics[name] = value;
  evaluated_step_ = state_.step;
  RETURN_IF_ERROR(CheckNames(tolerate_failure));
  evaluation_is_best_ = score_->Observe(state_.step, evaluation_);
  if (const auto key = MonitoredKey(); key.has_value()) state_.monitored = Measured(*key);
  if (config_.patience.has_value() && score_->since_best() > *config_.patience) StopEarly();
  progress_.evaluate_seconds += clock.Lap();
  ASSIGN_OR_RETURN(const auto training, TrainingSinceRow());
  if (recorder_ != nullptr) recorder_->Evaluated(Refreshed(), evaluation_, training, evaluation_is_best_);
  SaveRequest results{.step = state_.step, .metrics = evaluation_, .is_best = evaluation_is_best_};
  if (evaluation_is_best_) results.aliases = {"best"};
  results.evaluated = repeatable;
  checkpoints_->ReportEvaluation(results);
  return absl::OkStatus();
}

void BaseRunner::StopEarly() {
  state_.stopped_early = true;
  std::string best = "none was finite";
  if (score_->best().has_value()) best = absl::StrCat("best ", *score_->best(), " at step ", score_->best_step());
  Inform(absl::StrCat("stopped early after step ", state_.step, ": ", score_->since_best(),
                      " evaluations without a better ", score_->key(), "; ", best));
}

// Fills evaluation_. True: the numbers, which are all finite, are all that the evaluation has changed, so that a resume
// may take them in its place.
absl::StatusOr<bool> BaseRunner::EvaluateSplits(bool tolerate_failure) {
  if (known_evaluation_.has_value() && known_evaluation_->step == state_.step) {
    evaluation_ = std::exchange(known_evaluation_, std::nullopt)->results;
    return true;
  }
  evaluation_.clear();
  TensorMap before, after;
  RETURN_IF_ERROR(RunTorch("random states", [&] { CaptureGenerators(device(), &before); }));
  bool repeatable = true;
  for (const std::string& split : evaluate_splits_) {
    absl::StatusOr<std::map<std::string, double>> means = EvaluateSplit(split, /*max_batches=*/-1);
    if (!means.ok()) {
      // A finished training is not thrown away because its last evaluation failed.
      if (!tolerate_failure || FailureKindOf(means.status()) == FailureKind::kPeerLost) return means.status();
      Note(absl::StrCat("the last evaluation of '", split, "' failed: ", means.status().message()));
      repeatable = false;
      continue;
    }
    for (const auto& [name, value] : *means) {
      evaluation_[absl::StrCat(split, ".", name)] = value;
      repeatable = repeatable && std::isfinite(value);
    }
  }
  RETURN_IF_ERROR(RunTorch("random states", [&] {
    CaptureGenerators(device(), &after);
    for (const auto& [name, generator] : before) repeatable = repeatable && torch::equal(generator, after.at(name));
  }));
  if (options_.process_group == nullptr) return repeatable;
  ASSIGN_OR_RETURN(const Agreement agreement, options_.process_group->AllAgree({repeatable ? 1 : 0}));
  return agreement.min[0] == 1;
}

// A row of results for a run that evaluates nothing.
absl::Status BaseRunner::RecordTraining() {
  if (recorded_step_ == state_.step) return absl::OkStatus();
  ASSIGN_OR_RETURN(const auto training, TrainingSinceRow());
  if (recorder_ != nullptr) recorder_->Evaluated(Refreshed(), {}, training, /*is_best=*/false);
  return absl::OkStatus();
}

absl::StatusOr<std::map<std::string, double>> BaseRunner::TrainingSinceRow() {
  recorded_step_ = state_.step;
  if (!options_.workspace.has_value()) return std::map<std::string, double>();
  ASSIGN_OR_RETURN(const auto means, meters_.RowMeans(options_.process_group, /*with_metrics=*/log_interval_ == 0));
  RETURN_IF_ERROR(RunTorch("reading metrics", [&] { ReadStepMetrics(&progress_.metrics); }));
  for (const auto& [name, value] : means) {
    if (log_interval_ == 0) progress_.metrics[absl::StrCat("train.", name)] = value;
  }
  return means;
}

std::optional<std::string> BaseRunner::MonitoredKey() const {
  std::optional<std::string> key = schedule_monitor();
  if (!key.has_value()) return std::nullopt;
  if (key->empty()) return score_->key();
  if (!absl::StrContains(*key, ".")) key = absl::StrCat(score_->key().substr(0, score_->key().find('.')), ".", *key);
  return key;
}

std::optional<double> BaseRunner::Measured(const std::string& key) const {
  for (const auto* metrics : {&evaluation_, &progress_.metrics}) {
    if (const auto found = metrics->find(key); found != metrics->end()) return found->second;
  }
  return std::nullopt;
}

absl::Status BaseRunner::CheckSplits() const {
  const std::string known = absl::StrJoin(evaluate_splits_, ", ");
  const auto& split = config_.score.split;
  if (split.has_value() && !split->empty() &&
      std::find(evaluate_splits_.begin(), evaluate_splits_.end(), *split) == evaluate_splits_.end()) {
    return WithFailureKind(
        absl::InvalidArgumentError(absl::StrCat("score.split: '", *split, "' is not evaluated; allowed: ", known)),
        FailureKind::kInvalid);
  }
  if (schedule_monitor().has_value() && evaluate_splits_.empty()) {
    return WithFailureKind(absl::InvalidArgumentError("sched.type: reduce_on_plateau wants a metric after each pass, "
                                                      "and no split is evaluated"),
                           FailureKind::kInvalid);
  }
  return absl::OkStatus();
}

// What a name of the configuration means is known once something was measured. Before the end a wrong one is an error,
// and not a run without a best checkpoint or with a learning rate that never changes.
absl::Status BaseRunner::CheckNames(bool tolerate_failure) {
  if (evaluation_.empty() || std::exchange(names_checked_, true)) return absl::OkStatus();
  const std::pair<const char*, std::optional<std::string>> names[] = {{"score.name", score_->key()},
                                                                      {"sched.monitor", MonitoredKey()}};
  for (const auto& [option, key] : names) {
    if (!key.has_value() || key->empty() || Measured(*key).has_value()) continue;
    std::vector<std::string> measured;
    for (const auto& [name, value] : evaluation_) measured.push_back(name);
    const std::string text =
        absl::StrCat(option, ": nothing is measured as '", *key, "'; measured: ", absl::StrJoin(measured, ", "));
    if (!tolerate_failure) return WithFailureKind(absl::InvalidArgumentError(text), FailureKind::kInvalid);
    Note(text);
  }
  return absl::OkStatus();
}

}  // namespace athanor
