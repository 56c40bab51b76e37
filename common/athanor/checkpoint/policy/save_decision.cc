#include "athanor/checkpoint/policy/save_decision.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"

namespace athanor {
namespace {

bool OnInterval(const SaveRules& rules, int64_t index) {
  return rules.interval > 0 && index > 0 && index % rules.interval == 0;
}

// Why nothing may be saved at all; empty when it may.
std::string Objection(const SaveRules& rules, const SaveSituation& situation) {
  if (!rules.enabled) return "no folder for checkpoints";
  if (!situation.finite) return "the loss is not finite";
  return rules.load_only ? "load only" : "";
}

std::vector<std::string> NamesFor(const SaveRules& rules, const SaveArguments& arguments,
                                  const SaveSituation& situation, int64_t epochs, bool on_interval, bool best) {
  std::vector<std::string> names;
  const auto add = [&names](const std::string& name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  };
  add(arguments.name);
  // A history name says "after N passes": not within one.
  const bool within = rules.by_epoch && situation.epoch_fraction > 0 && situation.epoch_fraction < 1;
  if (on_interval && arguments.history && !within) add(rules.by_epoch ? EpochName(epochs) : StepName(situation.step));
  if (best) add("best");
  return names;
}

}  // namespace

SaveDecision DecideSave(const SaveRules& rules, const SaveArguments& arguments, const SaveSituation& situation) {
  SaveDecision decision;
  decision.reason = Objection(rules, situation);
  if (!decision.reason.empty()) return decision;
  const int64_t epochs = arguments.epochs.value_or(situation.epochs);
  const bool on_interval = OnInterval(rules, rules.by_epoch ? epochs : situation.step);
  const bool best = arguments.save_best && situation.is_best;
  decision.reason = arguments.force       ? "forced"
                    : arguments.last_step ? "last step"
                    : on_interval         ? "on the interval"
                    : best                ? "best"
                                          : "not due";
  if (!arguments.force && !arguments.last_step && !on_interval && !best) return decision;
  decision.model_only = arguments.last_step && rules.model_only;
  decision.aliases = NamesFor(rules, arguments, situation, epochs, on_interval, best);
  decision.room = arguments.must_wait ? SaveDecision::Room::kWait
                  : best              ? SaveDecision::Room::kSoon
                                      : SaveDecision::Room::kNow;
  // The model alone may take the place of the whole state, where files may be replaced.
  const bool saved =
      situation.step == situation.saved_step && (decision.model_only == situation.saved_model_only || rules.immutable);
  decision.action = saved ? SaveDecision::Action::kName : SaveDecision::Action::kSave;
  return decision;
}

bool IsDue(const SaveRules& rules, int64_t epochs, int64_t step, bool epoch_ended, int64_t saved_step) {
  if (!rules.enabled || rules.interval == 0 || step == saved_step) return false;
  if (!rules.by_epoch) return step % rules.interval == 0;
  return epoch_ended && epochs % rules.interval == 0;
}

bool CanSaveBeforeLastEvaluation(const SaveRules& rules) {
  return rules.enabled && !rules.load_only && !(rules.immutable && rules.model_only);
}

std::string EpochName(int64_t epochs) {
  return absl::StrFormat("ckpt-e%06d", epochs);
}

std::string StepName(int64_t step) {
  return absl::StrFormat("ckpt-s%012d", step);
}

bool IsHistoryName(const std::string& alias) {
  return absl::StartsWith(alias, "ckpt-e") || absl::StartsWith(alias, "ckpt-s");
}

}  // namespace athanor
