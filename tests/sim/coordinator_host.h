// The coordinator's shell in the simulated world: sessions with their delays and cuts, the batch, the commit, the
// release of effects, the crash before or after the commit, and the checks after every step.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "athanor/v1/agent_service.pb.h"
#include "server/core/coordinator_core.h"
#include "tests/sim/sim_store.h"
#include "tests/sim/sim_world.h"

namespace athanor::sim {

class SimAgent;

struct HostOptions {
  core::CoreOptions core;
  double crash_before_commit = 0;  // per batch, while the world has faults
  double crash_after_commit = 0;
};

class CoordinatorHost {
 public:
  CoordinatorHost(World& world, HostOptions options) : world_(world), options_(options) {}

  bool up() const { return core_ != nullptr; }
  void Start();
  // kill -9, and a start after `away`; nothing: after a moment.
  void Crash(const char* why, std::optional<absl::Duration> away = std::nullopt);
  // The store as it is now, and its return while the coordinator is down.
  void BackUp() { copy_ = store_.BackUp(); }
  // False when there is no copy, or it is in use.
  bool CrashAndRestore();
  // Starves the process: nothing is handled until then, and the gap is announced first.
  void Pause(absl::Duration gap);

  // A new stream; 0 when nobody listens.
  core::SessionId Connect(SimAgent* agent);
  void Send(core::SessionId session, v1::AgentMessage message);
  // Breaks the stream; both sides notice a little later. A black hole loses everything silently instead.
  void Cut(core::SessionId session);
  void BlackHole(core::SessionId session);
  // Until the pause is over nothing that `agent` sends arrives, or nothing that is sent to it, or both.
  void Partition(SimAgent* agent, bool up, bool down, absl::Duration pause);

  // `answer` hears the one Reply, unless the coordinator crashes before.
  void Verb(const std::function<core::Event(core::CallId)>& make, std::function<void(const core::Reply&)> answer);

  const core::CoordinatorCore& core() const { return *core_; }
  const SimStore& store() const { return store_; }
  int64_t steps() const { return steps_; }
  uint64_t lives() const { return life_ + 1; }

 private:
  struct Session {
    SimAgent* agent = nullptr;
    bool open = true, black_hole = false;
    absl::Time last_up = absl::InfinitePast(), last_down = absl::InfinitePast();
  };
  struct HeldCall {
    core::SessionId session = 0;
    uint64_t agent_call = 0;
  };
  struct Item {
    core::Event event;
    std::function<void()> done;
  };

  void Post(core::Event event, std::function<void()> done = nullptr);
  void Arrive(core::SessionId session, v1::AgentMessage message);
  void SchedulePump();
  void Pump();
  std::vector<core::Effect> StepOne(const core::Event& event);
  void Release(const std::vector<core::Effect>& effects);
  // `event` is null for the step of a recovery.
  void CheckStep(const core::Event* event, const std::vector<core::Effect>& effects);
  void CheckJobs();
  void CheckFiles();
  void ArmDeadline();
  void Down(core::SessionId session, v1::CoordinatorMessage message);
  void ToWorker(const core::WorkerId& worker, v1::CoordinatorMessage message);
  void PutFilesBack();
  void CheckTakeover(const core::AcceptWorker& accept) const;

  World& world_;
  const HostOptions options_;
  SimStore store_;
  std::unique_ptr<core::CoordinatorCore> core_;
  uint64_t life_ = 0;  // grows with each crash: what was scheduled for an older life does nothing
  std::deque<Item> queue_;
  bool pump_scheduled_ = false;
  absl::Time paused_until_ = absl::InfinitePast();
  absl::Time armed_ = absl::InfiniteFuture();
  std::map<core::SessionId, Session> sessions_;
  std::map<core::WorkerId, core::SessionId> by_worker_;
  std::map<core::CallId, HeldCall> rank_calls_;
  std::map<core::CallId, std::function<void(const core::Reply&)>> client_calls_;
  core::SessionId next_session_ = 1;
  core::CallId next_call_ = 1;
  int64_t steps_ = 0;
  std::map<core::JobId, std::pair<core::Generation, core::JobState>> seen_;  // durable facts that may only move on
  std::map<SimAgent*, std::pair<absl::Time, absl::Time>> partitions_;        // up and down, until
  std::optional<SimStore::Copy> copy_;
  bool restored_ = false;
};

}  // namespace athanor::sim
