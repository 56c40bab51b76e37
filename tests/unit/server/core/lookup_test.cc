// Names, references and the text of `explain`.
#include "tests/unit/server/core/core_harness.h"

namespace athanor::core {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

TEST(ResolveJob, ByIdOrByAUniqueName) {
  CoreHarness h;
  const JobId a = h.Submit({.name = "digits"});
  const JobId other = h.Submit({.name = "digits-large"});
  const ClusterState& state = h.core.state();
  EXPECT_EQ(*ResolveJob(state, a.str()), a);
  EXPECT_EQ(*ResolveJob(state, "digits"), a) << "digits-large is another name";
  EXPECT_EQ(*ResolveJob(state, "digits-large"), other);
  EXPECT_EQ(ResolveJob(state, "digit").status().code(), absl::StatusCode::kNotFound);
  const JobId b = h.Submit({.name = "digits"});
  const absl::Status ambiguous = ResolveJob(h.core.state(), "digits").status();
  EXPECT_EQ(ambiguous.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(ambiguous.message()), AllOf(HasSubstr(a.str()), HasSubstr(b.str()), HasSubstr("use an id")));
  EXPECT_TRUE(h.Verb(CancelJob{.job = a.str()}).status.ok());
  EXPECT_EQ(*ResolveJob(h.core.state(), "digits"), b) << "the one that is not over";
}

TEST(ResolveCheckpoint, ByStepAliasOrTag) {
  CoreHarness h;
  h.Register("w1", 1);
  const JobId job = h.Submit();
  h.StartTraining(job);
  h.Save(job, 120);
  for (const char* reference : {"120", "step-000000000120", "latest"})
    EXPECT_EQ(*ResolveCheckpoint(h.core.state(), job, reference), 120) << reference;
  for (const char* reference : {"121", "best", "-1", "step-", "", "1e2"})
    EXPECT_EQ(ResolveCheckpoint(h.core.state(), job, reference).status().code(), absl::StatusCode::kNotFound)
        << reference;
  EXPECT_EQ(ResolveCheckpoint(h.core.state(), JobId("none"), "1").status().code(), absl::StatusCode::kNotFound);
}

TEST(Aggregate, TheSlowestStepAndTheSums) {
  CoreHarness h;
  h.Register("w1", 2);
  const JobId job = h.Submit({.ranks = 2});
  h.StartTraining(job);
  RankReport zero{h.Ref(job, 0), {}, {}};
  zero.progress.step = 12;
  zero.progress.samples = 100;
  zero.progress.loss = 0.25;
  zero.progress.samples_per_second = 50;
  RankReport one{h.Ref(job, 1), {}, {}};
  one.progress.step = 10;
  one.progress.samples = 90;
  one.progress.loss = 9;
  one.progress.samples_per_second = 40;
  h.Beat("w1", {zero, one});
  const RankProgress all = AggregateProgress(h.core.state(), h.job(job));
  EXPECT_EQ(all.step, 10);
  EXPECT_EQ(all.samples, 190);
  EXPECT_EQ(all.samples_per_second, 90);
  EXPECT_EQ(all.loss, 0.25) << "rank 0 speaks for all";
}

TEST(Explain, AQueuedJob) {
  CoreHarness h;
  const JobId job = h.Submit({.ranks = 3});
  h.Pass(absl::Seconds(90));
  EXPECT_THAT(h.core.Explain(job, h.now),
              ElementsAre(StartsWith(absl::StrCat(job.str(), " is Queued: waits for more workers")),
                          "queued for 1m30s, position 1, needs 3 x 1 cpu slots at once"));
  EXPECT_TRUE(h.core.Explain(JobId("none"), h.now).empty());
}

TEST(Explain, TheFirstFailureNotItsSymptoms) {
  CoreHarness h;
  h.Register("w1", 2);
  const JobId job = h.Submit({.ranks = 2});
  h.StartTraining(job);
  h.Exit(job, 1, h.Cause(CauseKind::kPeerLost, "connection reset"));
  FailureCause real = h.Cause(CauseKind::kUserCode, "std::runtime_error: no such column");
  real.exit_code = 1;
  real.log_tail = "line 1\nline 2";
  h.Exit(job, 0, real);
  EXPECT_EQ(h.job(job).last_cause->kind, CauseKind::kUserCode);
  const std::vector<std::string> chain = h.core.Explain(job, h.now);
  EXPECT_THAT(chain, testing::Contains("  first failure: rank 0 on w1, user_code (exit code 1): std::runtime_error: no "
                                       "such column"));
  EXPECT_THAT(h.Told(job, "RealCauseFound"), HasSubstr("no such column"));
  EXPECT_THAT(h.Told(job, "RestartDecided"), HasSubstr("user_code 1 of 1"));
  h.StartTraining(job);
  h.Exit(job, 0, real);
  h.Exit(job, 1, h.Cause(CauseKind::kPeerLost));
  EXPECT_EQ(h.job(job).state, JobState::kFailed);
  const std::vector<std::string> final_chain = h.core.Explain(job, h.now);
  EXPECT_THAT(final_chain[0],
              HasSubstr("is Failed: rank 0: user_code on w1: std::runtime_error: no such column; gives up: "
                        "budget of user_code is used up (1 of 1)"));
  EXPECT_THAT(final_chain, testing::Contains("  its last lines:\nline 1\nline 2"));
}

TEST(Explain, ABackOffSaysWhenItEnds) {
  CoreHarness h;
  h.Register("w1", 1);
  RestartPolicySpec restart;
  restart.backoff_initial = absl::Seconds(8);
  restart.backoff_jitter = 0;
  const JobId job = h.Submit({.restart = restart});
  for (int i = 0; i < 2; ++i) {
    h.StartTraining(job);
    h.Fail(job, CauseKind::kSignal);
  }
  EXPECT_EQ(h.job(job).state, JobState::kBackingOff);
  h.Pass(absl::Seconds(3));
  EXPECT_EQ(h.core.Explain(job, h.now)[1], "starts again in 5s");
  h.Pass(absl::Seconds(5));
  EXPECT_EQ(h.job(job).state, JobState::kRunning);
}

}  // namespace
}  // namespace athanor::core
