#include "server/core/finished_jobs.h"

#include <gtest/gtest.h>

#include "tests/unit/server/core/core_harness.h"

namespace athanor::core {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1'700'000'000);

TEST(FinishedJobs, TheLongestOverIsDueByNumberSizeAndAge) {
  FinishedJobs finished({.jobs = 2, .bytes = 1000, .age = absl::Hours(1)});
  EXPECT_EQ(finished.NextDue(kStart), absl::InfiniteFuture());
  finished.Add(JobId("a"), kStart, 400);
  finished.Add(JobId("b"), kStart + absl::Minutes(1), 400);
  EXPECT_EQ(finished.Due(kStart + absl::Minutes(2)), std::nullopt);
  EXPECT_EQ(finished.NextDue(kStart + absl::Minutes(2)), kStart + absl::Hours(1));
  finished.Add(JobId("c"), kStart + absl::Minutes(2), 100);
  EXPECT_EQ(finished.Due(kStart + absl::Minutes(2)), JobId("a")) << "one too many";
  finished.Remove(JobId("a"), kStart);
  EXPECT_EQ(finished.Due(kStart + absl::Minutes(2)), std::nullopt);
  finished.Remove(JobId("c"), kStart + absl::Minutes(2));
  finished.Add(JobId("d"), kStart + absl::Minutes(3), 700);
  EXPECT_EQ(finished.Due(kStart + absl::Minutes(3)), JobId("b")) << "too large together";
  finished.Remove(JobId("d"), kStart + absl::Minutes(3));
  EXPECT_EQ(finished.bytes(), 400);
  EXPECT_EQ(finished.Due(kStart + absl::Minutes(61)), JobId("b")) << "too old";
}

// A few jobs with long options take what many others may.
TEST(FinishedJobs, LargeJobsAreForgottenBeforeTheirNumberIsReached) {
  CoreOptions options = PatientOptions();
  options.max_finished_bytes = 3 << 20;
  CoreHarness h(options);
  std::vector<JobId> jobs;
  for (int i = 0; i < 8; ++i) {
    SubmitJob event{.call = 1000u + i, .request = h.Key(""), .id = JobId(absl::StrCat("large-", i))};
    event.spec.name = "large";
    event.spec.payload.assign(1 << 20, 'x');
    h.Step(event);
    h.Verb(CancelJob{.job = event.id.str()});
    jobs.push_back(event.id);
    h.Pass(absl::Seconds(1));
  }
  EXPECT_EQ(h.core.state().jobs.size(), 2u);
  EXPECT_TRUE(h.core.state().jobs.contains(jobs[7])) << "the newest stay";
}

}  // namespace
}  // namespace athanor::core
