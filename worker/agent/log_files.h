// The ranks' output on disk: where it lies, reading pieces of it, keeping it bounded. Not thread-safe.
//
// A log over the cap keeps its head and its tail; the middle is given back to the file system, and readers are told.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "athanor/v1/agent_service.pb.h"
#include "worker/agent/rank_key.h"

namespace athanor::agent {

class LogFiles {
 public:
  explicit LogFiles(std::string work_dir) : work_dir_(std::move(work_dir)) {}
  // <work dir>/jobs/<job>/gen-0001: log, spec and failure file of each rank.
  std::string GenerationDir(const RankKey& key) const;
  std::string LogPath(const RankKey& key) const;
  std::string SpecPath(const RankKey& key) const;
  std::string FailurePath(const RankKey& key) const;
  // At most 64 KiB from `offset` (negative: from the end). `ended`: the rank writes no more.
  v1::LogData Read(const v1::ReadLog& request, bool ended) const;
  void EnforceCap(const RankKey& key);

 private:
  const std::string work_dir_;
  std::map<RankKey, int64_t> dropped_until_;
};

}  // namespace athanor::agent
