#include "server/core/timers.h"

#include <gtest/gtest.h>

namespace athanor::core {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1'700'000'000);
const JobId kJob("job-1");

TEST(Timers, AreTakenInOrderOnceTheyAreDue) {
  Timers timers;
  EXPECT_EQ(timers.Next(), absl::InfiniteFuture());
  timers.Set(HangTimer{kJob, 1}, kStart + absl::Seconds(2));
  timers.Set(RetryTimer{kJob}, kStart + absl::Seconds(1));
  EXPECT_EQ(timers.Next(), kStart + absl::Seconds(1));
  EXPECT_FALSE(timers.TakeDue(kStart).has_value());
  EXPECT_EQ(timers.TakeDue(kStart + absl::Seconds(5)), TimerKey(RetryTimer{kJob}));
  EXPECT_EQ(timers.TakeDue(kStart + absl::Seconds(5)), TimerKey(HangTimer{kJob, 1}));
  EXPECT_FALSE(timers.TakeDue(kStart + absl::Seconds(5)).has_value());
}

TEST(Timers, AKeyHasOneAndKindsAreApart) {
  Timers timers;
  timers.Set(HangTimer{kJob, 1}, kStart);
  timers.Set(HangTimer{kJob, 1}, kStart + absl::Seconds(3));
  timers.Set(GenerationTimer{kJob, 1}, kStart + absl::Seconds(4));
  EXPECT_EQ(timers.At(HangTimer{kJob, 1}), kStart + absl::Seconds(3));
  EXPECT_EQ(timers.At(HangTimer{kJob, 2}), absl::InfiniteFuture());
  timers.SetAtMost(HangTimer{kJob, 1}, kStart + absl::Seconds(9));
  EXPECT_EQ(timers.At(HangTimer{kJob, 1}), kStart + absl::Seconds(3)) << "an earlier one stays";
  timers.SetAtMost(HangTimer{kJob, 1}, kStart + absl::Seconds(1));
  EXPECT_EQ(timers.Next(), kStart + absl::Seconds(1));
  timers.Cancel(HangTimer{kJob, 1});
  EXPECT_EQ(timers.Next(), kStart + absl::Seconds(4));
}

TEST(Timers, ShiftMovesAll) {
  Timers timers;
  timers.Set(RetryTimer{kJob}, kStart);
  timers.Set(WorkerTimer{WorkerId("w1")}, kStart + absl::Seconds(1));
  timers.Shift(absl::Seconds(10));
  EXPECT_EQ(timers.Next(), kStart + absl::Seconds(10));
  EXPECT_EQ(timers.At(WorkerTimer{WorkerId("w1")}), kStart + absl::Seconds(11));
}

}  // namespace
}  // namespace athanor::core
