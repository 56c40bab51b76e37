// The ranks' output on disk: where it lies, reading pieces of it, keeping it bounded. Thread-safe.
//
// A log over the cap keeps its head and its tail; the middle is given back to the file system as a hole. The hole is
// the only record of it: readers ask the file system, so that another agent, started later, tells them the same.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "athanor/v1/agent_service.pb.h"
#include "worker/agent/rank_key.h"

namespace athanor::agent {

// `head` and the start of the tail are multiples of `block`, which is a multiple of the file system's.
struct LogLimits {
  int64_t cap = 64 << 20, head = 1 << 20, tail = 32 << 20, block = 1 << 20;
};

class LogFiles {
 public:
  explicit LogFiles(std::string work_dir, LogLimits limits = {}) : work_dir_(std::move(work_dir)), limits_(limits) {}
  const std::string& work_dir() const { return work_dir_; }
  // <work dir>/jobs/<job>/gen-0001: log, spec and failure file of each rank.
  std::string GenerationDir(const RankKey& key) const;
  std::string LogPath(const RankKey& key) const;
  std::string SpecPath(const RankKey& key) const;
  std::string FailurePath(const RankKey& key) const;
  // At most 256 KiB from `offset` (negative: from the end). `ended`: the rank writes no more. Where bytes were dropped
  // the data begins with a line that says so.
  v1::LogData Read(const v1::ReadLog& request, bool ended) const;
  // Cuts the log at `path` to its limits. UNIMPLEMENTED where the file system has no holes.
  absl::Status EnforceCap(const std::string& path) const;

 private:
  const std::string work_dir_;
  const LogLimits limits_;
};

}  // namespace athanor::agent
