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
}

TEST(ResolveJob, OfSeveralTheNewestThatIsNotOver) {
  CoreHarness h;
  const JobId a = h.Submit({.name = "digits"}), b = h.Submit({.name = "digits"});
  EXPECT_EQ(*ResolveJob(h.core.state(), "digits"), b);
  EXPECT_EQ(*ResolveJob(h.core.state(), "digits", AmbiguousName::kTakeNewestLive), b);
  const absl::Status refused = ResolveJob(h.core.state(), "digits", AmbiguousName::kRefuse).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), AllOf(HasSubstr(a.str()), HasSubstr(b.str()), HasSubstr("use an id")));
  EXPECT_THAT(
      AmbiguityNote(h.core.state(), "digits", b),
      AllOf(StartsWith("'digits' names 2 jobs: "), HasSubstr(a.str() + " (queued)"), HasSubstr("; took " + b.str())));
  EXPECT_EQ(AmbiguityNote(h.core.state(), b.str(), b), "") << "an id is clear";
  EXPECT_TRUE(h.Verb(CancelJob{.job = b.str()}).status.ok());
  EXPECT_EQ(*ResolveJob(h.core.state(), "digits", AmbiguousName::kRefuse), a) << "the one that is not over";
  EXPECT_TRUE(h.Verb(CancelJob{.job = "digits"}).status.ok());
  EXPECT_EQ(*ResolveJob(h.core.state(), "digits"), b) << "all are over: the newest";
  EXPECT_EQ(ResolveJob(h.core.state(), "digits", AmbiguousName::kTakeNewestLive).status().code(),
            absl::StatusCode::kFailedPrecondition)
      << "a verb does not choose among jobs that are over";
}

TEST(ResolveJob, NamesThatAreNearAreTold) {
  CoreHarness h;
  const JobId id = h.Submit({.name = "digits"});
  h.Register("agent-0", 1);
  EXPECT_EQ(ResolveJob(h.core.state(), "digts").status().message(), "no job 'digts', did you mean 'digits'?");
  EXPECT_EQ(ResolveJob(h.core.state(), "other").status().message(), "no job 'other'");
  EXPECT_EQ(NoSuchWorker(h.core.state(), WorkerId("agent-o")).message(),
            "no worker 'agent-o', did you mean 'agent-0'?");
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

// "135" must never give the weights of step 45.
TEST(ResolveCheckpoint, WhatLooksLikeAStepIsOne) {
  for (const char* step : {"135", "step-135", "step-000000000135", "0135", "99999999999999999999"})
    EXPECT_EQ(CheckTag(step).code(), absl::StatusCode::kInvalidArgument) << step;
  for (const char* reserved : {"latest", "best", "none", "scratch"})
    EXPECT_EQ(CheckTag(reserved).code(), absl::StatusCode::kInvalidArgument) << reserved;
  for (const char* tag : {"release-1", "v1.10", "step-a", "1e5", "120b"}) EXPECT_TRUE(CheckTag(tag).ok()) << tag;

  CoreHarness h;
  h.Register("w1", 1);
  const JobId job = h.Submit();
  h.StartTraining(job);
  h.Save(job, 45);
  h.Save(job, 135);
  for (const char* tag : {"135", "step-000000000135", "7", "none"}) {
    const Reply refused = h.Verb(TagCheckpoint{.job = job.str(), .checkpoint = "45", .tag = tag});
    EXPECT_EQ(refused.status.code(), absl::StatusCode::kInvalidArgument) << tag;
  }
  // Tags of a store from before: the step wins, and a step that is gone is not replaced.
  ClusterState state = h.core.state();
  state.jobs.at(job).aliases["135"] = 45;
  state.jobs.at(job).aliases["step-900"] = 45;
  EXPECT_EQ(*ResolveCheckpoint(state, job, "135"), 135);
  const absl::Status gone = ResolveCheckpoint(state, job, "step-900").status();
  EXPECT_EQ(gone.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(gone.message()), HasSubstr("no checkpoint of step 900; the tag 'step-900' points at "
                                                     "step-000000000045"));
  EXPECT_THAT(std::string(ResolveCheckpoint(state, job, "lates").status().message()),
              HasSubstr("did you mean 'latest'?; allowed: a step, "));
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
