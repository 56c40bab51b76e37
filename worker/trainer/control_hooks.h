// What the runner tells, told on to the agent; what the agent asks, told on to the runner.
//
// OnProgress() leaves the report in a cell; the control thread ("athanor-control") sends the newest ten times a second,
// and at once when the phase has changed. Reports are never queued. An agent that cannot be reached for a while ends
// this process: its own lease is over by then, and another generation may be running.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "absl/time/time.h"
#include "athanor/contract/run_hooks.h"
#include "worker/trainer/agent_link.h"

namespace athanor {

struct ControlOptions {
  absl::Duration interval = absl::Milliseconds(100);
  absl::Duration agent_lost_after = absl::Seconds(15);
  bool ends_with_lease = false;  // strict fencing
  std::function<void(const std::string& reason)>
      on_orphaned;                  // the agent is gone, or this rank shall leave at once; may not return
  std::function<bool()> signalled;  // a further vote to stop (SIGTERM); may be empty
};

class ControlHooks : public RunnerHooks {
 public:
  // Starts to report (phase "starting") and to listen. `link` outlives this object.
  ControlHooks(AgentLink* link, ControlOptions options);
  ~ControlHooks() override;

  void OnProgress(const ProgressReport& progress) override;
  void OnPhaseProgress(const PhaseProgress& progress) override;
  void OnNote(const std::string& text) override;
  bool StopRequested() const override;
  bool ServiceIsAway() const override { return link_->CoordinatorIsAway(); }
  // Before the runner exists. Any thread.
  void EnterPhase(RunnerPhase phase);

  ProgressReport latest() const;
  std::string stop_reason() const;

 private:
  void Run();

  AgentLink* const link_;
  const ControlOptions options_;
  std::atomic<bool> stop_requested_{false};
  std::atomic<int64_t> done_{0}, exchanges_{0};
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  ProgressReport latest_;    // guarded by mutex_
  std::string stop_reason_;  // guarded by mutex_
  bool urgent_ = true;       // guarded by mutex_: report now
  bool changed_ = true;      // guarded by mutex_: since the last report
  bool closing_ = false;     // guarded by mutex_
  std::thread thread_;
};

}  // namespace athanor
