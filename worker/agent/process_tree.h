// What ranks leave behind. A process that a rank started may have a session of its own and outlive it: the agent is its
// reaper then (BecomeReaper), finds it among its own children, and ends it with the rank.
//
// Whose it is says its environment, which children inherit: ATHANOR_SPEC_FILE in the agent's work directory,
// ATHANOR_JOB, ATHANOR_GENERATION, RANK. One that has dropped them may belong to any rank that started before it, and
// is ended with the last of these.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/agent/rank_key.h"

namespace athanor::agent {

struct ProcessState {
  char state = '?';  // as in /proc: R, S, D, Z …
  pid_t parent = 0;
  pid_t session = 0;
  uint64_t started = 0;  // clock ticks since boot
};

// Absent: no such process.
std::optional<ProcessState> StateOf(pid_t pid);
// What the text of /proc/PID/stat says. The program's name in it may hold blanks and parentheses.
std::optional<ProcessState> ParseStat(const std::string& text);
// The rank of the work directory `work_dir` whose environment `block` (NAME=value, each ended by a zero) is.
std::optional<RankKey> RankOfEnvironment(const std::string& block, const std::string& work_dir);

// Orphans among our descendants become our children instead of init's.
absl::Status BecomeReaper();

// Kills our children that no rank of `alive` (by pid) can own, waits for their end and reaps; again for what these
// leave, until nobody is left or `limit` is over. Programs that we started ourselves share our session and are left
// alone. Returns how many were killed.
int EndLeftovers(const std::map<pid_t, RankKey>& alive, const std::string& work_dir, absl::Duration limit);

// For the start, when no rank runs: kills every process of this machine that bears the mark of a rank of `work_dir`;
// an agent that was killed has left them. Returns how many.
int EndMarked(const std::string& work_dir, absl::Duration limit);

}  // namespace athanor::agent
