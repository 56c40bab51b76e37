#include "athanor/checkpoint/policy/save_plan.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"

namespace athanor {

std::string EpochName(int64_t epochs) {
  return absl::StrFormat("ckpt-e%06d", epochs);
}

std::string StepName(int64_t step) {
  return absl::StrFormat("ckpt-s%012d", step);
}

bool IsHistoryName(const std::string& alias) {
  return absl::StartsWith(alias, "ckpt-e") || absl::StartsWith(alias, "ckpt-s");
}

SavePlan PlanSave(const SaveRules& rules, const SaveArguments& arguments, int64_t epochs, int64_t step, bool is_best) {
  SavePlan plan;
  if (rules.load_only) {
    plan.reason = "load only";
    return plan;
  }
  const int64_t index = rules.by_epoch ? epochs : step;
  const bool on_interval = rules.interval > 0 && index > 0 && index % rules.interval == 0;
  const bool best = arguments.save_best && is_best;
  plan.save = arguments.force || arguments.last_step || on_interval || best;
  plan.reason = arguments.force       ? "forced"
                : arguments.last_step ? "last step"
                : on_interval         ? "on the interval"
                : best                ? "best"
                                      : "not due";
  if (!plan.save) return plan;
  plan.model_only = arguments.last_step && rules.model_only;
  const auto add = [&plan](const std::string& alias) {
    if (std::find(plan.aliases.begin(), plan.aliases.end(), alias) == plan.aliases.end()) plan.aliases.push_back(alias);
  };
  add(arguments.name);
  if (on_interval && arguments.history) add(rules.by_epoch ? EpochName(epochs) : StepName(step));
  if (best) add("best");
  return plan;
}

}  // namespace athanor
