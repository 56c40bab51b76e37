// Starts the ranks' processes and sees them off, on a thread of its own ("athanor-ranks"): neither a slow disk nor many
// ranks at once hold up the agent's loop, whose heartbeats keep its lease.
//
// A rank is over when its process and everything that this process started are dead, its cause is read from what it
// left, and its log is within its limits.
//
//   RankProcesses processes(&logs, {.on_started = ..., .on_ended = ...});
//   processes.Start(key, order);       // on_started, with the process or why there is none
//   processes.SeeOff(key, process);    // when its pidfd is readable; on_ended, with the cause
//
// Thread-safe. Ranks die with the thread that started them: this object lives as long as they may.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/v1/failure.pb.h"
#include "athanor/v1/job.pb.h"
#include "worker/agent/log_files.h"
#include "worker/agent/process_launcher.h"
#include "worker/agent/rank_key.h"
#include "worker/agent/task_thread.h"

namespace athanor::agent {

struct StartOrder {
  v1::JobSpec spec;  // what the rank reads; its env is left out
  std::string program;
  std::vector<std::string> environment;
  std::string job_dir;  // which a newer generation may have claimed
};

class RankProcesses {
 public:
  struct Handlers {  // called on the thread of this object
    std::function<void(const RankKey& key, const absl::StatusOr<Process>& process)> on_started;
    // Before on_started, with why there is none: a newer generation than the coordinator knows has written to job_dir.
    std::function<void(const RankKey& key, int64_t newest)> on_newer_generation;
    // `cause` absent: exit code 0.
    std::function<void(const RankKey& key, std::optional<v1::FailureCause> cause)> on_ended;
  };
  RankProcesses(const LogFiles* logs, Handlers handlers);

  void Start(const RankKey& key, StartOrder order);
  void SeeOff(const RankKey& key, const Process& process);
  // Ends what ranks that are over have left, and reaps; to be called now and then while ranks run.
  void EndOrphans();

 private:
  absl::StatusOr<Process> Launch(const RankKey& key, const StartOrder& order);
  std::optional<v1::FailureCause> Farewell(const RankKey& key, const Process& process);

  const LogFiles* const logs_;
  const Handlers handlers_;
  // Of the thread.
  std::map<pid_t, RankKey> alive_;
  std::map<RankKey, int64_t> out_of_memory_kills_;  // counted when the rank was started
  TaskThread thread_{"athanor-ranks"};              // last: what it runs uses the rest
};

}  // namespace athanor::agent
