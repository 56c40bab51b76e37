#include "athanor/checkpoint/policy/retention.h"

#include <algorithm>
#include <functional>

#include "athanor/checkpoint/policy/save_plan.h"

namespace athanor {

std::vector<int64_t> StepsToDelete(std::vector<int64_t> steps, int keep_latest_k, const std::set<int64_t>& pinned) {
  if (keep_latest_k <= 0) return {};
  std::sort(steps.begin(), steps.end(), std::greater<>());
  std::vector<int64_t> gone;
  for (size_t i = static_cast<size_t>(keep_latest_k); i < steps.size(); ++i) {
    if (!pinned.contains(steps[i])) gone.push_back(steps[i]);
  }
  return gone;
}

Retention ChooseRetention(const RetentionInput& input) {
  Retention retention;
  if (input.keep_latest_k <= 0) return retention;
  std::set<int64_t> pinned, named;
  std::map<int64_t, std::vector<std::string>> history_names;
  for (const auto& [alias, step] : input.aliases) {
    named.insert(step);
    if (IsHistoryName(alias)) {
      history_names[step].push_back(alias);
    } else {
      pinned.insert(step);
    }
  }
  std::vector<int64_t> history;
  for (const int64_t step : input.steps) {
    if (history_names.contains(step)) history.push_back(step);
    if (named.contains(step)) continue;
    if (input.abandoned.contains(step)) {
      retention.steps.push_back(step);
    } else {
      history.push_back(step);
    }
  }
  for (const int64_t step : StepsToDelete(history, input.keep_latest_k, {})) {
    const auto names = history_names.find(step);
    if (names != history_names.end())
      retention.aliases.insert(retention.aliases.end(), names->second.begin(), names->second.end());
    if (!pinned.contains(step)) retention.steps.push_back(step);
  }
  return retention;
}

}  // namespace athanor
