// What all parts of the simulated world share: the clock with its agenda, the random source, the disk and the trace.
// Single-threaded; everything that happens is a function of the seed.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/core/cluster_state.h"

namespace athanor::sim {

// splitmix64: the same numbers on every platform, unlike the distributions of <random>.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  int Below(int limit) { return static_cast<int>(Next() % static_cast<uint64_t>(limit)); }
  int Between(int low, int high) { return low + Below(high - low + 1); }
  bool Chance(double probability) { return static_cast<double>(Next() >> 11) * 0x1.0p-53 < probability; }
  absl::Duration Duration(absl::Duration low, absl::Duration high);

 private:
  uint64_t state_;
};

// The files of one checkpoint: which generation wrote each shard and the manifest.
struct CheckpointFiles {
  std::map<core::Rank, core::Generation> shards;
  core::Generation manifest = 0;  // 0: none yet
};

class World {
 public:
  World(uint64_t seed, bool trace) : random(seed), tracing(trace) {}

  absl::Time now = absl::FromUnixSeconds(1'000'000);
  Random random;
  bool faults = true;  // off in the last part of a run, in which everything must come to its end
  const bool tracing;
  std::map<std::pair<core::JobId, core::Step>, CheckpointFiles> disk;
  // Live processes: the proof that a job's old ranks are gone before new ones start.
  std::map<core::RankRef, core::WorkerId> processes;
  // The fence of each job's folder: the newest generation that has claimed it.
  std::map<core::JobId, core::Generation> fences;

  void After(absl::Duration delay, std::function<void()> what) {
    agenda_[{now + delay, ++sequence_}] = std::move(what);
  }
  // Runs the next entry of the agenda. False when there is none before `until`.
  bool RunNext(absl::Time until);

  // The first breach ends the run.
  void Fail(const std::string& what);
  bool failed() const { return !failure_.empty(); }
  const std::string& failure() const { return failure_; }

  template <typename... Parts>
  void Trace(const Parts&... parts) {
    if (tracing) AddTrace(absl::StrCat(parts...));
  }
  const std::deque<std::string>& trace() const { return trace_; }

 private:
  void AddTrace(std::string line);

  std::map<std::pair<absl::Time, uint64_t>, std::function<void()>> agenda_;
  uint64_t sequence_ = 0;
  std::string failure_;
  std::deque<std::string> trace_;
};

std::string Name(const core::RankRef& id);  // "job-3/2#1"

}  // namespace athanor::sim
