// One machine's agent: obeys the protocol of agent_service.proto (register, keep, heartbeat, repeat until acknowledged,
// strict ranks end with the lease) and runs simulated ranks.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "tests/sim/coordinator_host.h"
#include "tests/sim/sim_rank.h"
#include "tests/sim/sim_world.h"

namespace athanor::sim {

class SimAgent {
 public:
  SimAgent(World& world, CoordinatorHost& host, Training& training, core::WorkerId id, int32_t slots,
           absl::Duration lease, std::string home = "");

  void Start();
  // The process dies and takes its ranks and everything unreported along; it comes back after a while.
  void Crash();
  // The same without a return.
  void Leave();
  // SIGSTOP and, later, SIGCONT of the agent alone: its ranks run on.
  void Freeze(absl::Duration pause);
  bool alive() const { return alive_; }
  bool healthy() const { return alive_ && !frozen() && registered_; }
  void Deliver(core::SessionId session, const DownMessage& message);
  void SessionBroken(core::SessionId session);

  // ---- for ranks ----
  // A rank's request, repeated over reconnects until it is answered.
  void Call(const core::RankRef& id, core::Event event, std::function<void(const core::RankReply&)> answer);
  // The process of `id` has ended.
  void Exited(const core::RankRef& id, std::optional<core::FailureCause> cause, bool finished);

  const core::WorkerId& id() const { return id_; }
  core::SessionId session() const { return session_; }
  std::map<core::RankRef, std::unique_ptr<SimRank>>& ranks() { return ranks_; }

 private:
  struct PendingCall {
    core::RankRef id;
    core::Event event;
    std::function<void(const core::RankReply&)> answer;
  };

  void Connect();
  void ConnectLater();
  void Send(core::Event event, uint64_t sequence = 0);
  void SendDurable(core::Event event);
  void Beat(uint64_t life);
  void GuardLease(uint64_t life);
  bool frozen() const { return world_.now < frozen_until_; }
  void ReportEnded(const core::RankRef& id, const std::string& why);
  bool ReportsEndOf(const core::RankRef& id) const;
  void Handle(const core::AcceptWorker& accept);
  void Handle(const core::RefuseWorker& refuse);
  void Handle(const HeartbeatAck& ack);
  void Handle(const Ack& ack);
  void Handle(const LaunchRank& launch);
  void Handle(const core::StopTrainer& stop);
  void Handle(const core::RankReply& reply);
  void Handle(const core::DeleteFiles& deletion);
  core::RankProgress Progress(const SimRank& rank) const { return rank.progress; }

  World& world_;
  CoordinatorHost& host_;
  Training& training_;
  const core::WorkerId id_;
  const int32_t slots_;
  const absl::Duration lease_;
  const std::string home_;
  absl::Time frozen_until_ = absl::InfinitePast();
  uint64_t life_ = 0;
  bool alive_ = false;
  bool registered_ = false;
  uint64_t incarnation_ = 0;
  core::SessionId session_ = 0;
  absl::Time lease_until_ = absl::InfinitePast();
  absl::Time register_sent_, last_ack_ = absl::InfinitePast();
  std::map<core::RankRef, std::unique_ptr<SimRank>> ranks_;
  std::set<core::RankRef> known_;  // every rank ever launched by this process: a repeated launch is told apart
  std::map<core::JobId, core::Generation> newest_;
  std::map<uint64_t, core::Event> outbox_;
  uint64_t next_sequence_ = 1, next_call_ = 1;
  std::map<uint64_t, PendingCall> calls_;
};

}  // namespace athanor::sim
