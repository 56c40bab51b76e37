#include "server/core/timers.h"

namespace athanor::core {

void Timers::Set(const TimerKey& key, absl::Time at) {
  if (const auto it = by_key_.find(key); it != by_key_.end()) {
    by_time_.erase({it->second, key});
    by_key_.erase(it);
  }
  if (at == absl::InfiniteFuture()) return;
  by_key_[key] = at;
  by_time_.insert({at, key});
}

void Timers::SetAtMost(const TimerKey& key, absl::Time at) {
  if (at < At(key)) Set(key, at);
}

std::optional<TimerKey> Timers::TakeDue(absl::Time now) {
  if (Next() > now) return std::nullopt;
  TimerKey key = by_time_.begin()->second;
  by_time_.erase(by_time_.begin());
  by_key_.erase(key);
  return key;
}

absl::Time Timers::At(const TimerKey& key) const {
  const auto it = by_key_.find(key);
  return it == by_key_.end() ? absl::InfiniteFuture() : it->second;
}

void Timers::Shift(absl::Duration by) {
  std::set<std::pair<absl::Time, TimerKey>> moved;
  for (auto& [key, at] : by_key_) {
    at += by;
    moved.insert({at, key});
  }
  by_time_.swap(moved);
}

}  // namespace athanor::core
