// Jobs that are over, remembered by number, age and size: the longest over are forgotten first.
#pragma once

#include <map>
#include <optional>
#include <utility>

#include "server/core/cluster_state.h"

namespace athanor::core {

struct FinishedJobsLimits {
  int64_t jobs = 0, bytes = 0;
  absl::Duration age;
};

class FinishedJobs {
 public:
  explicit FinishedJobs(FinishedJobsLimits limits) : limits_(limits) {}

  void Add(const JobId& job, absl::Time ended_at, int64_t bytes);
  void Remove(const JobId& job, absl::Time ended_at);
  // The one to forget next, once it is time to.
  std::optional<JobId> Due(absl::Time now) const;
  // When the next is due; not later than `now` when one is already.
  absl::Time NextDue(absl::Time now) const;
  int64_t bytes() const { return bytes_; }

 private:
  const FinishedJobsLimits limits_;
  std::map<std::pair<absl::Time, JobId>, int64_t> by_age_;  // -> bytes
  int64_t bytes_ = 0;
};

// What a job and all that belongs to it take in memory, roughly.
int64_t BytesOf(const ClusterState& state, const JobEntry& job);

}  // namespace athanor::core
