// The protocol of the agents' streams: messages of athanor.v1 <-> events and effects of the core. Pure; what the
// coordinator's shell and the simulator have in common.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "athanor/v1/agent_service.pb.h"
#include "server/core/effect.h"
#include "server/core/event.h"

namespace athanor {

// ---- up ----
core::WorkerRegistered EventOf(const v1::Register& message, core::SessionId session);
// Of any other message; `call` is the number under which a rank's call will be answered. Texts are cut to their limits.
// None for a message or call without a body, and for LogData, which is no event.
std::optional<core::Event> EventOf(const v1::AgentMessage& message, core::SessionId session,
                                   const core::WorkerId& worker, core::CallId call);

// ---- down ----
// `lease` is the coordinator's own.
v1::CoordinatorMessage MessageOf(const core::AcceptWorker& accept, absl::Duration lease);
v1::CoordinatorMessage MessageOf(const core::RefuseWorker& refuse);
v1::CoordinatorMessage MessageOf(const core::StopTrainer& stop);
v1::CoordinatorMessage MessageOf(const core::DeleteFiles& deletion, const std::string& checkpoint_root);
// One for each seat, with the worker that it goes to.
std::vector<std::pair<core::WorkerId, v1::CoordinatorMessage>> MessagesOf(const core::LaunchRanks& launch,
                                                                          const std::string& checkpoint_root);
// Without the agent's number of the call.
v1::RankCallReply ReplyOf(const core::RankReply& reply, const std::string& checkpoint_root);

// Where the checkpoints of `job` lie: "<checkpoint root>/<job>".
std::string JobDir(const std::string& checkpoint_root, const core::JobId& job);

}  // namespace athanor
