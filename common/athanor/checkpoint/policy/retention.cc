#include "athanor/checkpoint/policy/retention.h"

#include <algorithm>

#include "athanor/checkpoint/policy/save_decision.h"

namespace athanor {

RetentionDecision ChooseRetention(std::vector<RetainedCheckpoint> checkpoints, int keep_latest_k) {
  RetentionDecision decision;
  if (keep_latest_k <= 0) return decision;
  std::sort(checkpoints.begin(), checkpoints.end(),
            [](const RetainedCheckpoint& a, const RetainedCheckpoint& b) { return a.step > b.step; });
  int kept = 0;
  for (const RetainedCheckpoint& one : checkpoints) {
    const bool placed = one.takes_place && !one.expendable && kept < keep_latest_k;
    if (placed) ++kept;
    if (one.takes_place && !one.expendable && !placed) decision.beyond.push_back(one.step);
    const bool unneeded = one.expendable || (one.takes_place && !placed);
    if (unneeded && !one.pinned) decision.remove.push_back(one.step);
  }
  return decision;
}

std::vector<RetainedCheckpoint> ByNames(const NamedCheckpoints& named) {
  std::set<int64_t> history, pinned;
  for (const auto& [alias, step] : named.aliases) (IsHistoryName(alias) ? history : pinned).insert(step);
  std::vector<RetainedCheckpoint> checkpoints;
  for (const int64_t step : named.steps) {
    const bool nameless = !history.contains(step) && !pinned.contains(step);
    checkpoints.push_back({.step = step,
                           .takes_place = history.contains(step) || nameless,
                           .pinned = pinned.contains(step),
                           .expendable = nameless && named.abandoned.contains(step)});
  }
  return checkpoints;
}

}  // namespace athanor
