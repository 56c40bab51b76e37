// Carries out the effects of a committed batch. Thread: core loop.
#pragma once

#include <string>

#include "server/core/coordinator_core.h"
#include "server/observability/coordinator_metrics.h"
#include "server/runtime/agent_sessions.h"
#include "server/runtime/call_table.h"
#include "server/runtime/watch_hub.h"

namespace athanor {

struct EffectRunner {
  const core::CoordinatorCore& core;
  AgentSessions& sessions;
  CallTable& calls;
  WatchHub& watches;
  CoordinatorMetrics& metrics;
  const std::string& checkpoint_root;
  absl::Time now;

  void Run(core::Effect& effect);

 private:
  void Do(core::PutRecord& put);
  void Do(core::DeleteRecord&) {}
  void Do(core::Reply& reply) { calls.Answer(reply); }
  void Do(core::RankReply& reply);
  void Do(core::AcceptWorker& accept);
  void Do(core::RefuseWorker& refuse);
  void Do(core::LaunchRanks& launch);
  void Do(core::StopTrainer& stop);
  void Do(core::DeleteFiles& deletion);
  void Do(core::Touched& touched);
  void Do(core::Note& note);
};

}  // namespace athanor
