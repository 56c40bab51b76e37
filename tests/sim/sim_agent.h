// One machine's agent: the real AgentCore, whose effects meet simulated streams, processes and files.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/sim/coordinator_host.h"
#include "tests/sim/sim_rank.h"
#include "tests/sim/sim_world.h"
#include "worker/agent/agent_core.h"

namespace athanor::sim {

class SimAgent {
 public:
  SimAgent(World& world, CoordinatorHost& host, Training& training, core::WorkerId id, int32_t slots,
           std::string home = "");

  void Start();
  // The process dies and takes its ranks and everything unreported along; it comes back after a while.
  void Crash();
  // The same without a return.
  void Leave();
  // SIGTERM: its ranks save and leave, then it ends; it comes back after a while.
  void ShutDown();
  // SIGSTOP and, later, SIGCONT of the agent alone: its ranks run on.
  void Freeze(absl::Duration pause);
  bool alive() const { return core_.has_value(); }
  bool healthy() const { return alive() && !frozen() && core_->registered(); }
  void Deliver(core::SessionId session, v1::CoordinatorMessage message);
  void SessionBroken(core::SessionId session);

  // ---- for ranks ----
  // A rank's request; the agent repeats it over reconnects until it is answered.
  void Call(const core::RankRef& id, v1::RankCall call, std::function<void(const v1::RankCallReply&)> answer);
  // The process of `id` has ended.
  void Exited(const core::RankRef& id, const std::optional<core::FailureCause>& cause);

  const core::WorkerId& id() const { return id_; }
  core::SessionId session() const { return session_; }

 private:
  struct Waiting {
    core::RankRef id;
    std::function<void(const v1::RankCallReply&)> answer;
  };
  using Effects = std::vector<agent::Effect>;

  // What happens to the agent is handed to its core now, or when it is frozen no more.
  void Feed(std::function<Effects(agent::AgentCore& core)> input);
  // Runs `what` after `delay` unless this process has ended by then.
  void Later(absl::Duration delay, std::function<void()> what);
  void Perform(Effects effects);
  void Do(agent::SendMessage& effect);
  void Do(agent::LaunchProcess& effect);
  void Do(agent::KillProcess& effect);
  void Do(agent::DirectRank& effect);
  void Do(agent::AnswerRank& effect);
  void Do(agent::ReadLogFile&) {}
  void Do(agent::RemoveCheckpoint& effect);
  void Do(agent::CloseSession& effect);
  Effects StartProcess(agent::AgentCore& core, const v1::LaunchRank& launch);
  void CheckAlone(const core::RankRef& id) const;
  void Connect();
  Effects LoseSession(agent::AgentCore& core, core::SessionId session);
  void ArmTimer();
  void Report();
  void GuardStrictRanks();
  void EndIfDone();
  void ComeBack();
  bool frozen() const { return world_.now < frozen_until_; }
  SimRank* Find(const agent::RankKey& key);

  World& world_;
  CoordinatorHost& host_;
  Training& training_;
  const core::WorkerId id_;
  const int32_t slots_;
  const std::string home_;
  absl::Time frozen_until_ = absl::InfinitePast();
  uint64_t life_ = 0;
  std::optional<agent::AgentCore> core_;  // of this life; none while no process runs
  absl::Time armed_ = absl::InfiniteFuture();
  core::SessionId session_ = 0;
  std::map<core::RankRef, std::unique_ptr<SimRank>> ranks_;
  uint64_t next_call_ = 1;
  std::map<uint64_t, Waiting> calls_;
};

}  // namespace athanor::sim
