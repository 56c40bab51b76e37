// The agent's lease and the heartbeats that earn it. It runs from the moment at which the last acknowledged heartbeat
// was sent; the registration counts as one. No clock inside, not thread-safe; a part of AgentCore.
//
//   Lease lease;
//   lease.Ask(now);                                  // Register is sent
//   lease.Grant(absl::Seconds(8), absl::Seconds(1)); // Registered has come
//   const uint64_t number = lease.Beat(now);         // goes into the heartbeat
//   lease.Acknowledge(number, later);                // the lease ends 8 s after `now`
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace athanor::agent {

class Lease {
 public:
  void Ask(absl::Time now);
  // The answer to the newest Ask(). `interval`, of heartbeats, is brought within 10 ms and a minute.
  void Grant(absl::Duration length, absl::Duration interval);
  // The number of the heartbeat that is sent now. With `more_waits` the next follows soon.
  uint64_t Beat(absl::Time now, bool more_waits = false);
  // False for a heartbeat that is unknown or acknowledged already.
  bool Acknowledge(uint64_t number, absl::Time now);
  // A heartbeat of somebody else for this agent, sent at `sent`, was acknowledged.
  void Extend(absl::Time sent);
  // There is news: the next heartbeat comes as early as its pace allows.
  void Hurry(absl::Time now);
  // No heartbeat is due until one is sent: there is nobody to hear it.
  void Pause() { next_beat_ = absl::InfiniteFuture(); }
  // It is over and was dealt with; the next one is granted.
  void End() { until_ = absl::InfiniteFuture(); }

  absl::Time until() const { return until_; }  // InfiniteFuture: none
  absl::Time next_beat() const { return next_beat_; }
  absl::Time last_beat() const { return last_beat_; }
  absl::Duration interval() const { return interval_; }
  // From heartbeat to acknowledgement, of those since the last call.
  std::vector<absl::Duration> TakeRoundTrips() { return std::exchange(round_trips_, {}); }

 private:
  absl::Duration length_ = absl::InfiniteDuration();
  absl::Duration interval_ = absl::Seconds(1);
  absl::Time until_ = absl::InfiniteFuture();
  absl::Time next_beat_ = absl::InfiniteFuture(), last_beat_ = absl::InfinitePast();
  uint64_t number_ = 0;
  std::map<uint64_t, absl::Time> sent_;  // not yet acknowledged; 0: the registration
  std::vector<absl::Duration> round_trips_;
};

}  // namespace athanor::agent
