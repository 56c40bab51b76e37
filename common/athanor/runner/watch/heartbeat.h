// A file per rank that tells, without the service, where it stands: replaced as a whole every interval, at each change
// of phase and at the end.
//
//   HeartbeatOptions options{.path = workspace.dir + "/heartbeats/rank-00000.json", .interval = absl::Seconds(60)};
//   Heartbeat heartbeat(options, {{"id", workspace.id}, {"name", workspace.name}, {"rank", 0}, {"world_size", 1}});
//   heartbeat.Update(progress);           // each step: cheap, nothing is written
//
// Progress is a step, or a batch of an evaluation. Keys: status ("starting", "running", "terminating", "closed"), event
// ("startup", the reason of a termination, "shutdown", else null), updated_at_unix, last_progress_at_unix,
// seconds_since_progress, hostname, pid, mode, global_step, micro_step, progress (0 .. 1, null when unknown), steps,
// epoch, loss, restart_count, checkpoint_failures, resumed_from_step, and those of the identity. Thread-safe. The first
// write that fails is in error(); later ones are silent.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "athanor/runner/runner_hooks.h"

namespace athanor {

struct HeartbeatOptions {
  std::string path;
  absl::Duration interval = absl::Seconds(60);
};

class Heartbeat {
 public:
  Heartbeat(HeartbeatOptions options, nlohmann::json identity);
  ~Heartbeat();  // writes "closed"

  void Update(const ProgressReport& progress);
  void Terminating(const std::string& reason);  // writes at once
  absl::Status error() const;

 private:
  void Run();
  void Write(const std::string& status, const nlohmann::json& event);

  const HeartbeatOptions options_;
  const nlohmann::json identity_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  ProgressReport progress_;  // guarded by mutex_, as all below
  absl::Time progressed_;    // when the step last changed
  std::string termination_;  // reason; "" while running
  absl::Status error_;
  bool started_ = false, urgent_ = false, closing_ = false;
  std::thread thread_;
};

}  // namespace athanor
