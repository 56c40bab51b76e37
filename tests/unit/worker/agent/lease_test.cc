#include "worker/agent/lease.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace athanor::agent {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1'000);
constexpr absl::Duration kLength = absl::Seconds(8), kInterval = absl::Seconds(1);

class LeaseTest : public testing::Test {
 protected:
  LeaseTest() {
    lease.Ask(kStart);
    lease.Grant(kLength, kInterval);
  }
  Lease lease;
};

TEST_F(LeaseTest, RunsFromTheSendingOfWhatWasAcknowledged) {
  EXPECT_EQ(lease.until(), kStart + kLength) << "of the registration";
  const uint64_t first = lease.Beat(kStart + absl::Seconds(1)), second = lease.Beat(kStart + absl::Seconds(2));
  EXPECT_EQ(lease.until(), kStart + kLength) << "nobody has answered";
  EXPECT_TRUE(lease.Acknowledge(second, kStart + absl::Seconds(5)));
  EXPECT_EQ(lease.until(), kStart + absl::Seconds(2) + kLength);
  EXPECT_FALSE(lease.Acknowledge(first, kStart + absl::Seconds(6))) << "the later one answers for both";
  EXPECT_FALSE(lease.Acknowledge(0, kStart + absl::Seconds(6)));
  EXPECT_FALSE(lease.Acknowledge(77, kStart + absl::Seconds(6)));
  EXPECT_EQ(lease.until(), kStart + absl::Seconds(2) + kLength);
  EXPECT_THAT(lease.TakeRoundTrips(), testing::ElementsAre(absl::Seconds(3)));
  EXPECT_THAT(lease.TakeRoundTrips(), testing::IsEmpty());
}

TEST_F(LeaseTest, AnOldAnswerNeverShortensIt) {
  const uint64_t beat = lease.Beat(kStart + absl::Seconds(1));
  lease.Extend(kStart + absl::Seconds(4));
  EXPECT_EQ(lease.until(), kStart + absl::Seconds(4) + kLength);
  lease.Acknowledge(beat, kStart + absl::Seconds(5));
  EXPECT_EQ(lease.until(), kStart + absl::Seconds(4) + kLength);
}

TEST_F(LeaseTest, OneThatIsOverIsNotExtendedFromOutside) {
  lease.End();
  lease.Extend(kStart + absl::Seconds(20));
  EXPECT_EQ(lease.until(), absl::InfiniteFuture());
  lease.Ask(kStart + absl::Seconds(30));
  lease.Grant(kLength, kInterval);
  EXPECT_EQ(lease.until(), kStart + absl::Seconds(30) + kLength);
}

TEST_F(LeaseTest, HeartbeatsComeByTheIntervalOrByTheirPace) {
  lease.Beat(kStart);
  EXPECT_EQ(lease.next_beat(), kStart + kInterval);
  lease.Hurry(kStart + absl::Milliseconds(20));
  EXPECT_EQ(lease.next_beat(), kStart + absl::Milliseconds(100));
  lease.Hurry(kStart + absl::Milliseconds(500));
  EXPECT_EQ(lease.next_beat(), kStart + absl::Milliseconds(100)) << "news never puts one off";
  lease.Beat(kStart + absl::Seconds(1), /*more_waits=*/true);
  EXPECT_EQ(lease.next_beat(), kStart + absl::Milliseconds(1100));
  lease.Pause();
  EXPECT_EQ(lease.next_beat(), absl::InfiniteFuture());
  lease.Grant(kLength, absl::Hours(1));
  EXPECT_EQ(lease.interval(), absl::Minutes(1));
  lease.Grant(kLength, absl::ZeroDuration());
  EXPECT_EQ(lease.interval(), absl::Milliseconds(10));
}

}  // namespace
}  // namespace athanor::agent
