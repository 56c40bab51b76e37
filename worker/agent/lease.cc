#include "worker/agent/lease.h"

#include <algorithm>
#include <iterator>

namespace athanor::agent {
namespace {

constexpr absl::Duration kPace = absl::Milliseconds(100);  // of heartbeats that carry news
constexpr absl::Duration kMinHeartbeatInterval = absl::Milliseconds(10), kMaxHeartbeatInterval = absl::Minutes(1);
constexpr size_t kBeatsInFlight = 1024;

}  // namespace

void Lease::Ask(absl::Time now) {
  sent_ = {{0, now}};
}

void Lease::Grant(absl::Duration length, absl::Duration interval) {
  length_ = length;
  interval_ = std::clamp(interval, kMinHeartbeatInterval, kMaxHeartbeatInterval);
  if (const auto asked = sent_.find(0); asked != sent_.end()) until_ = asked->second + length_;
}

uint64_t Lease::Beat(absl::Time now, bool more_waits) {
  sent_[++number_] = now;
  while (sent_.size() > kBeatsInFlight) sent_.erase(sent_.begin());
  last_beat_ = now;
  next_beat_ = now + (more_waits ? std::min(kPace, interval_) : interval_);
  return number_;
}

bool Lease::Acknowledge(uint64_t number, absl::Time now) {
  const auto beat = sent_.find(number);
  if (beat == sent_.end() || number == 0) return false;
  if (until_ == absl::InfiniteFuture()) until_ = absl::InfinitePast();
  until_ = std::max(until_, beat->second + length_);
  if (round_trips_.size() < kBeatsInFlight) round_trips_.push_back(now - beat->second);
  sent_.erase(sent_.begin(), std::next(beat));
  return true;
}

void Lease::Extend(absl::Time sent) {
  if (until_ != absl::InfiniteFuture()) until_ = std::max(until_, sent + length_);
}

void Lease::Hurry(absl::Time now) {
  next_beat_ = std::min(next_beat_, std::max(now, last_beat_ + kPace));
}

}  // namespace athanor::agent
