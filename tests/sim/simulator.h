// One seeded run: a cluster of random shape under random faults, then quiet, then everything must have come to its end.
//
//   SimResult result = Simulate({.seed = 42});
//   if (!result.failure.empty()) ...   // the same seed fails alike, always
//
// Checked after every step: the core's invariants; each verb is answered once; goodput adds up to a job's age; no
// listed "InternalError". After every commit: nothing unwritten, final states are final, committed checkpoints have
// their files. Always: no rank of a job with strict fencing starts while one of an older generation runs anywhere, no
// other one while such a one runs on its machine, no healthy agent loses its name, no older generation writes over a
// committed checkpoint. At the end: every job is final, no slot, process, call or deletion is left, every acknowledged
// verb holds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace athanor::sim {

struct SimOptions {
  uint64_t seed = 1;
  bool trace = false;
  double fault_rate = 1;  // x the usual faults; 0: a fair-weather run
  // Besides: the coordinator away for many leases, partitions of one way and both, frozen agents, second agents of one
  // name, an older copy of the store restored; jobs with both kinds of fencing.
  bool membership_faults = false;
  // The coordinator dies once and is away for so long: no rank without strict fencing is lost.
  absl::Duration outage;
};

struct SimResult {
  std::string failure;             // empty: the run was right
  std::vector<std::string> trace;  // its last lines, with trace = true
  int64_t steps = 0;               // events that the core took
  int64_t jobs = 0, succeeded = 0, generations = 0, checkpoints = 0, coordinator_lives = 0;
};

SimResult Simulate(const SimOptions& options);

}  // namespace athanor::sim
