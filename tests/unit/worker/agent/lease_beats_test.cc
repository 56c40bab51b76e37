#include "worker/agent/lease_beats.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "worker/agent/agent_clock.h"

namespace athanor::agent {
namespace {

TEST(BeatPacer, BeatsOnlyWhenTheLoopIsLate) {
  BeatPacer pacer;
  absl::Time now = absl::FromUnixSeconds(1000);
  EXPECT_EQ(pacer.next(), absl::InfiniteFuture()) << "no session";
  pacer.Registered(absl::Seconds(1), now);
  for (int i = 0; i < 5; ++i) {
    now += absl::Seconds(1);
    EXPECT_FALSE(pacer.Due(now).has_value());
    EXPECT_FALSE(pacer.Turn(now, now).has_value());
  }
  const absl::Time stuck = now;
  std::vector<uint64_t> sent;
  for (int i = 0; i < 100; ++i) {
    now += absl::Milliseconds(100);
    if (const auto number = pacer.Due(now)) sent.push_back(*number);
  }
  EXPECT_EQ(sent.size(), 9u) << "after 1.5 s, then each second";
  EXPECT_FALSE(pacer.Acked(5)) << "a number of the loop's own";
  EXPECT_TRUE(pacer.Acked(sent[1]));
  EXPECT_TRUE(pacer.Acked(sent[0])) << "late: ours all the same";
  EXPECT_EQ(pacer.Turn(now, stuck), stuck + absl::Milliseconds(2500));
  EXPECT_FALSE(pacer.Turn(now, stuck).has_value());
}

TEST(BeatPacer, ALoopThatStandsStillIsNotCoveredUp) {
  BeatPacer pacer;
  const absl::Time start = absl::FromUnixSeconds(1000);
  pacer.Registered(absl::Seconds(1), start);
  EXPECT_TRUE(pacer.Due(start + BeatPacer::kStuckLoop - absl::Seconds(1)).has_value());
  EXPECT_FALSE(pacer.Due(start + BeatPacer::kStuckLoop + absl::Seconds(1)).has_value());
  EXPECT_EQ(pacer.next(), absl::InfiniteFuture());
  pacer.Turn(start + absl::Minutes(5), start);
  EXPECT_TRUE(pacer.Due(start + absl::Minutes(5)).has_value());
  pacer.Closed();
  EXPECT_FALSE(pacer.Due(start + absl::Minutes(6)).has_value());
}

TEST(LeaseBeats, BeatsWhileTheLoopIsBusy) {
  std::mutex mutex;
  std::condition_variable beaten;
  int beats = 0;
  LeaseBeats lease([&](uint64_t session, v1::AgentMessage message) {
    std::lock_guard lock(mutex);
    EXPECT_EQ(session, 7u);
    EXPECT_TRUE(message.has_heartbeat());
    ++beats;
    beaten.notify_all();
  });
  lease.Registered(7, absl::Milliseconds(10), AgentClock());
  std::unique_lock lock(mutex);
  EXPECT_TRUE(beaten.wait_for(lock, std::chrono::seconds(60), [&] { return beats >= 3; }));
}

}  // namespace
}  // namespace athanor::agent
