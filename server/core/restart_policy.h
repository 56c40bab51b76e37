// Whether and when a failed job starts again. A pure function of its arguments; every decision carries its reason.
//
// Budgets count restarts per cause over the whole life of the job; contract/failure_cause.h has the defaults. The first
// restart after progress is immediate; the n-th in a row without progress waits backoff_initial * 2^(n-2), at most
// backoff_max, stretched by up to backoff_jitter. A storage that cannot be reached is no fault of the job: such
// generations do not count as ones without progress; the n-th waits backoff_initial * 2^(n-1).
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/time/time.h"
#include "server/core/job_spec.h"

namespace athanor::core {

struct RestartHistory {
  std::map<CauseKind, int32_t> restarts_by_cause;
  int32_t generations_without_progress = 0;  // failed ones in a row, the present one included
  uint64_t seed = 0;
};

struct RestartDecision {
  bool retry = false;
  absl::Time retry_at = absl::InfiniteFuture();
  std::string reason;
};

RestartDecision DecideRestart(const FailureCause& cause, const RestartHistory& history, const RestartPolicySpec& policy,
                              absl::Time now);

}  // namespace athanor::core
