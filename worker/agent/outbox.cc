#include "worker/agent/outbox.h"

#include <algorithm>
#include <utility>

namespace athanor::agent {
namespace {

constexpr size_t kLimit = 16384;

}  // namespace

const v1::AgentMessage& Outbox::Add(v1::AgentMessage message) {
  message.set_sequence(next_sequence_++);
  if (messages_.size() >= kLimit) {
    auto oldest = std::find_if(messages_.begin(), messages_.end(), [](const auto& one) { return one.has_launched(); });
    messages_.erase(oldest == messages_.end() ? messages_.begin() : oldest);
    ++dropped_;
  }
  messages_.push_back(std::move(message));
  return messages_.back();
}

void Outbox::Acknowledge(uint64_t sequence) {
  while (!messages_.empty() && messages_.front().sequence() <= sequence) messages_.pop_front();
}

bool Outbox::ReportsEndOf(const RankKey& key) const {
  return std::any_of(messages_.begin(), messages_.end(),
                     [&](const auto& one) { return one.has_exited() && KeyOf(one.exited().id()) == key; });
}

}  // namespace athanor::agent
