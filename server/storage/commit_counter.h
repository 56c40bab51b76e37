// The side file COMMITS: how many commits of the store were acknowledged. It lies beside RocksDB's own log, so that a
// log that lost its end on a record border, which RocksDB takes for a clean end, is noticed at the next open. Twenty
// decimal digits and a line end, written in place after each commit (a killed process loses nothing), made durable
// every 256 commits and at a clean close (a power cut loses at most so many). An extra proof: when it cannot be written
// the store goes on without. Not thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace athanor {

class CommitCounter {
 public:
  static constexpr uint64_t kSyncEvery = 256;
  static constexpr size_t kBytes = 21;

  explicit CommitCounter(const std::string& directory) : path_(directory + "/COMMITS") {}
  ~CommitCounter();  // makes the last value durable
  CommitCounter(const CommitCounter&) = delete;
  CommitCounter& operator=(const CommitCounter&) = delete;

  const std::string& path() const { return path_; }
  bool Exists() const;
  // 0: no file, or an empty one. DATA_LOSS: holds something else than a whole number.
  absl::StatusOr<uint64_t> Read() const;
  void Write(uint64_t commit);

 private:
  const std::string path_;
  int file_ = -1;
};

}  // namespace athanor
