// The folders <work dir>/jobs/<job>: logs and failure files of the ranks that ran here. Which of them go is a decision
// over names, ages and sizes; RemoveOldJobFolders() carries it out.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/agent/log_files.h"

namespace athanor::agent {

struct LogRetention {
  absl::Duration age = absl::Hours(24 * 14);  // since a rank wrote there last
  int64_t bytes = int64_t{20} << 30;          // of all folders together
  int64_t jobs = 1000;
};

struct JobFolder {
  std::string job;
  absl::Time written;  // newest file
  int64_t bytes = 0;   // on disk
};

// The jobs whose folders go, oldest first: over the age; and over the count or the bytes of what remains. `live` jobs
// and those written within the last hour, which may be between two generations, are counted and stay.
std::vector<std::string> FoldersToRemove(std::vector<JobFolder> folders, const std::set<std::string>& live,
                                         const LogRetention& retention, absl::Time now);

struct SweepResult {
  std::vector<std::string> removed;
  std::vector<std::string> errors;  // of folders that could not be removed; they are tried again
};
// Also cuts logs that an agent left over their limit when it was killed. Nothing outside <work dir>/jobs is touched, no
// link followed.
SweepResult RemoveOldJobFolders(const LogFiles& logs, const std::set<std::string>& live, const LogRetention& retention);

}  // namespace athanor::agent
