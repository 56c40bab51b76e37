#include "server/core/restart_policy.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/core/duration_text.h"

namespace athanor::core {
namespace {

// splitmix64: the core has no random source of its own.
double UnitInterval(uint64_t seed) {
  seed += 0x9e3779b97f4a7c15ULL;
  seed = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9ULL;
  seed = (seed ^ (seed >> 27)) * 0x94d049bb133111ebULL;
  seed ^= seed >> 31;
  return static_cast<double>(seed >> 11) * 0x1.0p-53;
}

absl::Duration Delay(int32_t in_a_row, const RestartHistory& history, const RestartPolicySpec& policy) {
  if (in_a_row <= 1) return absl::ZeroDuration();
  const int doublings = std::min(in_a_row - 2, 30);
  absl::Duration delay = std::min(policy.backoff_initial * std::ldexp(1.0, doublings), policy.backoff_max);
  const double jitter = policy.backoff_jitter * UnitInterval(history.seed + in_a_row);
  return delay * (1.0 + jitter);
}

}  // namespace

RestartDecision DecideRestart(const FailureCause& cause, const RestartHistory& history, const RestartPolicySpec& policy,
                              absl::Time now) {
  RestartDecision decision;
  const std::string name = ToString(cause.kind);
  if (!cause.retryable) {
    decision.reason =
        absl::StrCat("gives up: ", name, " says that a restart would end alike (exit code ", cause.exit_code, ")");
    return decision;
  }
  const auto budget_it = policy.budgets.find(cause.kind);
  const int32_t budget = budget_it != policy.budgets.end() ? budget_it->second : FactsOf(cause.kind).budget;
  const auto used_it = history.restarts_by_cause.find(cause.kind);
  const int32_t used = used_it != history.restarts_by_cause.end() ? used_it->second : 0;
  if (budget >= 0 && used >= budget) {
    decision.reason = absl::StrCat("gives up: budget of ", name, " is used up (", used, " of ", budget, ")");
    return decision;
  }
  const bool away = cause.kind == CauseKind::kStorage;
  if (!away && policy.max_generations_without_progress > 0 &&
      history.generations_without_progress >= policy.max_generations_without_progress) {
    decision.reason =
        absl::StrCat("gives up: ", history.generations_without_progress,
                     " generations in a row made no progress (limit ", policy.max_generations_without_progress, ")");
    return decision;
  }
  const absl::Duration delay = Delay(away ? used + 2 : history.generations_without_progress, history, policy);
  decision.retry = true;
  decision.retry_at = now + delay;
  decision.reason =
      absl::StrCat("restarts ", delay == absl::ZeroDuration() ? "at once" : absl::StrCat("in ", DurationText(delay)),
                   ": ", name, " ", used + 1, " of ", budget < 0 ? "unlimited" : absl::StrCat(budget));
  return decision;
}

}  // namespace athanor::core
