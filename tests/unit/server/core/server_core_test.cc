// Verbs, leases, hangs and recovery of a core that is driven by hand.
#include "tests/unit/server/core/core_harness.h"

namespace athanor::core {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST(Requests, TheSameKeyGetsTheSameAnswer) {
  CoreHarness h;
  const JobId first = h.Submit({.key = "once"});
  EXPECT_TRUE(h.reply().created);
  h.Submit({.key = "once"});
  EXPECT_EQ(h.reply().job, first);
  EXPECT_FALSE(h.reply().created);
  EXPECT_EQ(h.core.state().jobs.size(), 1u);
  const Reply other = h.Verb(CancelJob{.request = {"once", "another digest"}, .job = first.str()});
  EXPECT_EQ(other.status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(h.job(first).state, JobState::kQueued);
}

TEST(Requests, AreForgottenByAgeAndNumber) {
  CoreOptions options = PatientOptions();
  options.max_requests = 3;
  options.request_memory = absl::Hours(1);
  CoreHarness h(options);
  for (int i = 0; i < 5; ++i) h.Submit({.key = absl::StrCat("k", i)});
  EXPECT_EQ(h.core.state().requests.size(), 3u);
  EXPECT_FALSE(h.core.state().requests.contains("k1"));
  h.Pass(absl::Hours(2));
  EXPECT_TRUE(h.core.state().requests.empty());
}

TEST(Verbs, ASuspendedJobGivesItsSlotsBackAndGoesOn) {
  CoreHarness h;
  h.Register("w1", 2);
  const JobId job = h.Submit({.ranks = 2});
  h.StartTraining(job);
  h.Save(job, 10);
  EXPECT_EQ(h.Verb(SuspendJob{.job = job.str(), .reason = "lunch"}).job_state, JobState::kSuspending);
  ASSERT_EQ(h.All<StopTrainer>().size(), 2u);
  EXPECT_EQ(h.All<StopTrainer>()[0].mode, StopMode::kSaveAndLeave);
  h.Exit(job, 0, h.Cause(CauseKind::kPreempted));
  h.Exit(job, 1, h.Cause(CauseKind::kPreempted));
  EXPECT_EQ(h.job(job).state, JobState::kSuspended);
  EXPECT_EQ(h.job(job).reason, "suspended at step-000000000010");
  EXPECT_TRUE(h.worker("w1").used.empty());
  EXPECT_TRUE(h.job(job).restarts_by_cause.empty()) << "no budget is charged";
  EXPECT_TRUE(h.Verb(ResumeJob{.job = job.str()}).status.ok());
  EXPECT_EQ(h.generation(job).resume_step, 10);
  EXPECT_EQ(h.Verb(ResumeJob{.job = job.str()}).message, "is Running already");
}

TEST(Verbs, WhatIsOverCannotBeCancelled) {
  CoreHarness h;
  h.Register("w1", 1);
  const JobId job = h.Submit();
  h.StartTraining(job);
  h.Finish(job);
  EXPECT_EQ(h.job(job).state, JobState::kSucceeded);
  EXPECT_EQ(h.Verb(CancelJob{.job = job.str()}).status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(h.Verb(SuspendJob{.job = job.str()}).status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(h.Verb(CancelJob{.job = "nobody"}).status.code(), absl::StatusCode::kNotFound);
}

TEST(Leases, ASilentWorkerIsSuspectThenLost) {
  CoreOptions options;
  options.lease = absl::Seconds(10);
  CoreHarness h(options);
  h.Register("w1", 2);
  const JobId job = h.Submit({.ranks = 2});
  h.StartTraining(job);
  h.Pass(absl::Seconds(6));
  EXPECT_EQ(h.worker("w1").state, WorkerState::kSuspect);
  h.Beat("w1");
  EXPECT_EQ(h.worker("w1").state, WorkerState::kReady);
  h.Pass(absl::Seconds(11));
  EXPECT_EQ(h.worker("w1").state, WorkerState::kLost);
  EXPECT_EQ(h.job(job).last_cause->kind, CauseKind::kNodeLost);
  EXPECT_EQ(h.job(job).state, JobState::kQueued) << "no worker is left";
  h.Beat("w1");
  EXPECT_EQ(h.worker("w1").state, WorkerState::kLost) << "a lost worker has to register anew";
  h.Register("w1", 2, "cpu", CoreHarness::Running(job, 1, 1));
  EXPECT_TRUE(h.All<AcceptWorker>()[0].keep.empty()) << "ranks of the old generation are not kept";
  EXPECT_EQ(h.job(job).generation, 2);
}

TEST(Leases, OurOwnPauseIsNobodysFault) {
  CoreOptions options;
  options.lease = absl::Seconds(10);
  CoreHarness h(options);
  h.Register("w1", 1);
  h.now += absl::Seconds(60);
  h.Step(ClockGap{absl::Seconds(60)});
  h.Step(DeadlineReached{});
  EXPECT_EQ(h.worker("w1").state, WorkerState::kReady);
}

TEST(Hangs, TheRankThatStandsStillIsNamed) {
  CoreHarness h;
  h.Register("w1", 2);
  TimeoutsSpec timeouts;
  timeouts.hang = absl::Seconds(30);
  const JobId job = h.Submit({.ranks = 2, .timeouts = timeouts});
  h.StartTraining(job);
  h.Progress(job, 0, 8);
  h.Progress(job, 1, 7);
  for (int i = 0; i < 3; ++i) {  // both go on speaking, at the same step
    h.Pass(absl::Seconds(9));
    h.Progress(job, 0, 8);
    h.Progress(job, 1, 7);
  }
  EXPECT_EQ(h.generation(job).state, GenerationState::kTraining);
  h.Pass(absl::Seconds(5));
  EXPECT_EQ(h.generation(job).state, GenerationState::kStopping);
  EXPECT_EQ(h.generation(job).cause->kind, CauseKind::kHang);
  EXPECT_EQ(h.generation(job).cause->rank, 1);
  EXPECT_THAT(h.generation(job).cause->detail, AllOf(HasSubstr("limit 30s"), HasSubstr("step 7 while training")));
}

TEST(Hangs, RanksThatNeverJoinAreNamed) {
  CoreHarness h;
  h.Register("w1", 3);
  TimeoutsSpec timeouts;
  timeouts.join = absl::Seconds(20);
  const JobId job = h.Submit({.ranks = 3, .timeouts = timeouts});
  for (Rank rank = 0; rank < 3; ++rank) h.Launch(job, rank);
  h.Join(job, 1);
  h.Pass(absl::Seconds(21));
  EXPECT_EQ(h.generation(job).cause->kind, CauseKind::kLaunchFailed);
  EXPECT_EQ(h.generation(job).cause->detail, "did not join in time: rank 0 on w1, rank 2 on w1");
}

// What a store would give back: without what is not stored.
ClusterState Stored(ClusterState state) {
  for (auto& [id, worker] : state.workers) {
    worker.session = 0;
    worker.used.clear();
  }
  return state;
}

TEST(Progress, WhatHappensInARunIsAnEventOnce) {
  CoreHarness h;
  h.Register("w1", 1);
  const JobId job = h.Submit({});
  h.StartTraining(job);
  RankReport report{h.Ref(job, 0), {}, absl::ZeroDuration()};
  report.progress.phase = "training";
  const auto told = [&](std::vector<std::string> events) {
    report.progress.step += 1;
    report.progress.events = std::move(events);
    h.Beat(h.Seat(job, 0).str(), {report});
    int64_t count = 0;
    for (const JobEventEntry& event : h.history[job]) count += event.type == "RunEvent" ? 1 : 0;
    return count;
  };
  EXPECT_EQ(told({}), 0);
  EXPECT_EQ(told({"loaded 6 tensors from w.pt"}), 1);
  EXPECT_EQ(told({"loaded 6 tensors from w.pt"}), 1);
  EXPECT_EQ(told({"loaded 6 tensors from w.pt", "stopped early after step 4: ..."}), 2);
  EXPECT_EQ(h.Told(job, "RunEvent"), "stopped early after step 4: ...");
}

TEST(Recovery, RunningJobsGoOn) {
  CoreHarness before;
  before.Register("w1", 2);
  const JobId job = before.Submit({.ranks = 2});
  before.StartTraining(job);
  CoreHarness after(PatientOptions(), Stored(before.core.state()));
  EXPECT_EQ(after.worker("w1").used.size(), 2u);
  after.Register("w1", 2, "cpu", CoreHarness::Running(job, 1, 2));
  EXPECT_EQ(after.All<AcceptWorker>()[0].keep.size(), 2u);
  EXPECT_EQ(after.generation(job).state, GenerationState::kTraining);
  EXPECT_EQ(after.job(job).generation, 1);
  after.Finish(job);
  EXPECT_EQ(after.job(job).state, JobState::kSucceeded);
}

TEST(Recovery, WhatCameDueMeanwhileIsDoneAtOnce) {
  CoreHarness before;
  before.Register("w1", 1);
  RestartPolicySpec restart;
  restart.backoff_initial = absl::Seconds(5);
  const JobId job = before.Submit({.restart = restart, .key = "old"});
  for (int i = 0; i < 2; ++i) {
    before.StartTraining(job);
    before.Fail(job, CauseKind::kSignal);
  }
  ASSERT_EQ(before.job(job).state, JobState::kBackingOff);
  ClusterState stored = Stored(before.core.state());
  stored.jobs.at(job).retry_at -= absl::Hours(48);
  stored.requests.at("old").time -= absl::Hours(48);
  CoreHarness after(PatientOptions(), std::move(stored));
  EXPECT_GT(after.core.NextDeadline(), after.now);
  EXPECT_EQ(after.job(job).state, JobState::kRunning);
  EXPECT_FALSE(after.core.state().requests.contains("old"));
}

TEST(Recovery, UnfinishedDeletionsAreAskedForAgain) {
  CoreHarness before;
  before.Register("w1", 1);
  const JobId job = before.Submit({.keep = 1});
  before.StartTraining(job);
  for (core::Step step : {10, 20, 30}) before.Save(job, step);
  ASSERT_EQ(before.checkpoint(job, 10).state, CheckpointState::kDeleting);
  CoreHarness after(PatientOptions(), Stored(before.core.state()));
  after.Register("w1", 1, "cpu", CoreHarness::Running(job, 1, 1));
  ASSERT_EQ(after.All<DeleteFiles>().size(), 1u);
  EXPECT_EQ(after.All<DeleteFiles>()[0].step, 10);
}

TEST(Goodput, AddsUpToTheJobsAge) {
  CoreHarness h;
  const JobId job = h.Submit();
  h.Pass(absl::Seconds(10));
  h.Register("w1", 1);
  h.StartTraining(job);
  h.Pass(absl::Seconds(2));
  h.Progress(job, 0, 1);
  h.Pass(absl::Seconds(20));
  h.Progress(job, 0, 50);
  h.Save(job, 40);
  h.Fail(job, CauseKind::kSignal);
  h.Pass(absl::Seconds(3));
  h.StartTraining(job);
  h.Progress(job, 0, 41);
  h.Pass(absl::Seconds(4));
  h.Progress(job, 0, 50);
  h.Pass(absl::Seconds(1));
  h.Progress(job, 0, 51);
  h.Pass(absl::Seconds(1));
  h.Finish(job);
  const GoodputEntry& goodput = h.job(job).goodput;
  EXPECT_NEAR(goodput.queue_seconds, 12, 1e-6);
  EXPECT_NEAR(goodput.recovery_seconds, 3, 1e-6);
  EXPECT_NEAR(goodput.recomputed_seconds, 4, 1e-6);
  EXPECT_NEAR(goodput.productive_seconds, 22, 1e-6);
  EXPECT_EQ(goodput.accounted_until - h.job(job).created_at, absl::Seconds(41));
}

TEST(Goodput, ARankThatReportsAheadIsNoRecomputation) {
  CoreHarness h;
  h.Register("w1", 2);
  const JobId job = h.Submit({.ranks = 2});
  h.StartTraining(job);
  h.Progress(job, 0, 10);
  h.Progress(job, 1, 20);
  h.Pass(absl::Seconds(5));
  h.Progress(job, 1, 30);
  h.Progress(job, 0, 30);
  EXPECT_NEAR(h.job(job).goodput.recomputed_seconds, 0, 1e-6);
  EXPECT_NEAR(h.job(job).goodput.productive_seconds, 5, 1e-6);
}

TEST(Bounds, OldEventsGenerationsAndJobsAreForgotten) {
  CoreOptions options = PatientOptions();
  options.max_generations_per_job = 3;
  options.max_finished_jobs = 2;
  options.max_events_per_job = 5;
  CoreHarness h(options);
  h.Register("w1", 1);
  const JobId job = h.Submit();
  for (int i = 0; i < 8; ++i) {
    h.StartTraining(job);
    h.Save(job, i + 1);  // progress: the crash loop limit does not apply
    h.Fail(job, CauseKind::kSignal);
  }
  EXPECT_EQ(h.core.state().generations.at(job).size(), 3u);
  h.StartTraining(job);
  h.Finish(job);
  for (int i = 0; i < 2; ++i) {
    h.Pass(absl::Seconds(1));
    const JobId next = h.Submit();
    h.StartTraining(next);
    h.Finish(next);
  }
  EXPECT_FALSE(h.core.state().jobs.contains(job)) << "the oldest finished one";
  EXPECT_EQ(h.core.state().jobs.size(), 2u);
  int events = 0;
  for (const DeleteRecord& gone : h.All<DeleteRecord>())
    events += gone.kind == DeleteRecord::Kind::kEvent && gone.job == job ? 1 : 0;
  EXPECT_EQ(events, options.max_events_per_job) << "its stored events go with it";
}

}  // namespace
}  // namespace athanor::core
