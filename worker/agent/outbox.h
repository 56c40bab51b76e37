// What must be told to the coordinator, in order, until it is acknowledged. Bounded. Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>

#include "athanor/v1/agent_service.pb.h"
#include "worker/agent/rank_key.h"

namespace athanor::agent {

class Outbox {
 public:
  // Numbers and keeps it. When full, the oldest launch is dropped (the next registration says it again), else the
  // oldest message: a rank that no registration names has ended.
  const v1::AgentMessage& Add(v1::AgentMessage message);
  void Acknowledge(uint64_t sequence);  // everything up to it
  bool ReportsEndOf(const RankKey& key) const;

  const std::deque<v1::AgentMessage>& messages() const { return messages_; }
  int64_t dropped() const { return dropped_; }

 private:
  std::deque<v1::AgentMessage> messages_;
  uint64_t next_sequence_ = 1;
  int64_t dropped_ = 0;
};

}  // namespace athanor::agent
