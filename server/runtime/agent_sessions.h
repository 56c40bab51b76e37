// The connected agents: who can be sent commands, and which rank's call waits for which answer. Thread-safe.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "athanor/v1/agent_service.pb.h"
#include "server/core/effect.h"

namespace athanor {

// One live stream. Send() queues and never blocks; a stream whose queue is full is closed (the agent connects again).
class AgentStream {
 public:
  virtual ~AgentStream() = default;
  virtual void Send(v1::CoordinatorMessage message) = 0;
  virtual void Close(const absl::Status& status) = 0;
};

class AgentSessions {
 public:
  core::SessionId Open(std::shared_ptr<AgentStream> stream);
  // The core has accepted it: commands for `worker` go there from now on.
  void Bind(core::SessionId session, const core::WorkerId& worker);
  void Remove(core::SessionId session);

  bool Send(core::SessionId session, v1::CoordinatorMessage message);
  // To the newest session of the worker; false when it has none (the core repeats commands at registration).
  bool SendToWorker(const core::WorkerId& worker, v1::CoordinatorMessage message);
  void Close(core::SessionId session, const absl::Status& status);
  void CloseAll(const absl::Status& status);

  // A rank's call that came through `session` with the agent's own number.
  void HoldRankCall(core::CallId call, core::SessionId session, uint64_t agent_call);
  void AnswerRankCall(core::CallId call, v1::RankCallReply reply);

  // One read of a log: answered by LogData, or by an error when the session ends.
  using LogCallback = std::function<void(const v1::LogData&)>;
  enum class ReadSent : uint8_t {
    kYes,
    kNoAgent,  // it is not connected
    kBusy,     // it holds as many reads as it may: ask again later
  };
  ReadSent ReadLog(const core::WorkerId& worker, v1::ReadLog request, LogCallback callback);
  void OnLogData(const v1::LogData& data);

 private:
  struct Entry {
    std::shared_ptr<AgentStream> stream;
    core::WorkerId worker;
  };
  struct HeldCall {
    core::SessionId session;
    uint64_t agent_call;
  };
  struct HeldRead {
    core::SessionId session;
    LogCallback callback;
  };
  std::shared_ptr<AgentStream> Find(core::SessionId session);

  std::mutex mutex_;
  core::SessionId next_session_ = 1;
  uint64_t next_read_ = 1;
  std::unordered_map<core::SessionId, Entry> sessions_;
  std::map<core::WorkerId, core::SessionId> by_worker_;
  std::unordered_map<core::CallId, HeldCall> calls_;
  std::unordered_map<uint64_t, HeldRead> reads_;
  std::unordered_map<core::SessionId, size_t> reads_held_;  // of reads_, by session
};

}  // namespace athanor
