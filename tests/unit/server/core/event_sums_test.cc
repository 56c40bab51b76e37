#include "server/core/event_sums.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace athanor::core {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

TEST(EventSums, TheFirstThreeStandAloneThenOneAMinute) {
  EventSums sums;
  absl::Time now = absl::FromUnixSeconds(1'700'000'000);
  const JobId job("job-1");
  for (const char* message : {"1", "2", "3"}) EXPECT_EQ(sums.Add(job, "Saved", message, now), message);
  EXPECT_EQ(sums.Add(job, "Saved", "4", now), std::nullopt);
  EXPECT_EQ(sums.Add(job, "Failed", "x", now), "x") << "each type for itself";
  now += absl::Minutes(1);
  EXPECT_EQ(sums.Add(job, "Saved", "5", now), "2 of them, the last: 5");
  EXPECT_EQ(sums.Add(job, "Saved", "6", now), std::nullopt);
  EXPECT_THAT(sums.Take(job), ElementsAre(Pair("Saved", "6")));
  EXPECT_THAT(sums.Take(job), IsEmpty());
  EXPECT_EQ(sums.Add(job, "Saved", "7", now), "7") << "the next generation begins anew";
}

}  // namespace
}  // namespace athanor::core
