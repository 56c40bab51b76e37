// The machine's deadlines, each under a key of its kind.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <utility>
#include <variant>

#include "absl/time/time.h"
#include "server/core/job_spec.h"

namespace athanor::core {

struct RetryTimer {
  JobId job;
  friend auto operator<=>(const RetryTimer&, const RetryTimer&) = default;
};
struct GenerationTimer {  // join, start-up or stop
  JobId job;
  Generation generation = 0;
  friend auto operator<=>(const GenerationTimer&, const GenerationTimer&) = default;
};
struct HangTimer {
  JobId job;
  Generation generation = 0;
  friend auto operator<=>(const HangTimer&, const HangTimer&) = default;
};
struct WorkerTimer {  // its lease, or when a lost one is forgotten
  WorkerId worker;
  friend auto operator<=>(const WorkerTimer&, const WorkerTimer&) = default;
};
struct QuarantineTimer {
  WorkerId worker;
  friend auto operator<=>(const QuarantineTimer&, const QuarantineTimer&) = default;
};
struct RequestsTimer {
  friend auto operator<=>(const RequestsTimer&, const RequestsTimer&) = default;
};
struct FinishedJobsTimer {
  friend auto operator<=>(const FinishedJobsTimer&, const FinishedJobsTimer&) = default;
};
struct StrictJobsTimer {  // jobs of strict fencing may start
  friend auto operator<=>(const StrictJobsTimer&, const StrictJobsTimer&) = default;
};
using TimerKey = std::variant<RetryTimer, GenerationTimer, HangTimer, WorkerTimer, QuarantineTimer, RequestsTimer,
                              FinishedJobsTimer, StrictJobsTimer>;

class Timers {
 public:
  // In place of what was set; InfiniteFuture is none.
  void Set(const TimerKey& key, absl::Time at);
  void Cancel(const TimerKey& key) { Set(key, absl::InfiniteFuture()); }
  // No later than `at`; an earlier one stays.
  void SetAtMost(const TimerKey& key, absl::Time at);
  // One that is due, the earliest first. It is gone then.
  std::optional<TimerKey> TakeDue(absl::Time now);
  absl::Time Next() const { return by_time_.empty() ? absl::InfiniteFuture() : by_time_.begin()->first; }
  absl::Time At(const TimerKey& key) const;  // InfiniteFuture when not set
  void Shift(absl::Duration by);

 private:
  std::set<std::pair<absl::Time, TimerKey>> by_time_;
  std::map<TimerKey, absl::Time> by_key_;
};

}  // namespace athanor::core
