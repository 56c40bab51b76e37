// What is forgotten, and when: jobs that are over, workers that are lost; and what is never stored.
#include "tests/unit/server/core/core_harness.h"

namespace athanor::core {
namespace {

using testing::HasSubstr;

JobId Over(CoreHarness& h) {
  const JobId id = h.Submit();
  h.StartTraining(id);
  h.Finish(id);
  return id;
}

TEST(Retention, JobsThatAreOverAreKeptByNumberAndByAge) {
  CoreOptions options = PatientOptions();
  options.max_finished_jobs = 2;
  options.finished_job_age = absl::Hours(1);
  CoreHarness h(options);
  h.Register("w1", 4);
  const JobId first = Over(h), second = Over(h), third = Over(h);
  const JobId live = h.Submit({.ranks = 64});
  h.Pass(absl::Seconds(1));
  EXPECT_FALSE(h.core.state().jobs.contains(first)) << "the longest over goes first";
  EXPECT_TRUE(h.core.state().jobs.contains(second));
  EXPECT_TRUE(h.core.state().jobs.contains(third));
  h.Pass(absl::Hours(1));
  EXPECT_FALSE(h.core.state().jobs.contains(third));
  EXPECT_FALSE(h.core.state().generations.contains(third));
  EXPECT_TRUE(h.core.state().jobs.contains(live)) << "however long it waits";
}

TEST(Retention, AJobThatIsOverKeepsItsMetrics) {
  CoreHarness h;
  h.Register("w1", 4);
  const JobId id = h.Submit();
  h.StartTraining(id);
  const WorkerId seat = h.Seat(id, 0);
  const RankRef rank = h.Ref(id, 0);
  RankProgress progress;
  progress.step = 400;
  progress.metrics = {{"test.accuracy", 0.9}};
  h.Step(RankFinished{1, seat, rank, progress});
  h.Step(RankExited{0, seat, rank, std::nullopt, /*finished=*/true});
  ASSERT_EQ(h.job(id).state, JobState::kSucceeded);
  EXPECT_EQ(AggregateProgress(h.core.state(), h.job(id)).metrics.at("test.accuracy"), 0.9);
}

TEST(Retention, GoesOnAfterARestart) {
  CoreOptions options = PatientOptions();
  CoreHarness h(options);
  h.Register("w1", 4);
  for (int i = 0; i < 300; ++i) Over(h);
  options.max_finished_jobs = 5;
  CoreHarness again(options, h.core.state());
  again.Pass(absl::Seconds(1));
  EXPECT_EQ(again.core.state().jobs.size(), 5u);
}

TEST(Retention, ALostWorkerIsForgottenInTime) {
  CoreOptions options;
  options.lost_worker_age = absl::Hours(2);
  CoreHarness h(options);
  h.Register("w1", 4);
  h.Pass(absl::Hours(1));
  EXPECT_EQ(h.worker("w1").state, WorkerState::kLost);
  CoreHarness again(options, h.core.state());
  again.now = h.now;
  again.Step(DeadlineReached{});
  again.Pass(absl::Hours(2));
  EXPECT_TRUE(again.core.state().workers.empty());
  again.Register("w1", 4);
  EXPECT_EQ(again.worker("w1").state, WorkerState::kReady) << "it may come back";
}

TEST(Retention, AParentOfALiveJobIsNotDeleted) {
  CoreHarness h;
  h.Register("w1", 1);
  const JobId parent = h.Submit({.name = "parent"});
  h.StartTraining(parent);
  h.Save(parent, 10);
  h.Finish(parent);
  const JobId child = h.Submit({.name = "child", .ranks = 64, .parent_job = parent.str()});
  const Reply refused = h.Verb(DeleteJob{.job = parent.str()});
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status.message()), HasSubstr(child.str()));
  EXPECT_TRUE(h.Verb(CancelJob{.job = child.str()}).status.ok());
  const Reply deleted = h.Verb(DeleteJob{.job = parent.str()});
  EXPECT_TRUE(deleted.status.ok()) << deleted.status;
  EXPECT_EQ(deleted.message, "deleted; the files of its 1 checkpoint stay");
  EXPECT_FALSE(h.core.state().jobs.contains(parent));
  EXPECT_FALSE(h.core.state().checkpoints.contains(parent));
}

TEST(Retention, ARankCannotGiveUpAStepThatIsNone) {
  CoreHarness h;
  h.Register("w1", 1);
  const JobId id = h.Submit();
  h.StartTraining(id);
  h.Step(CheckpointAbandoned{7, WorkerId("w1"), h.Ref(id, 0), -1, "because"});
  EXPECT_EQ(h.rank_reply().status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(h.All<PutRecord>().empty()) << "nothing is stored";
}

TEST(Retention, FinishBeforeJoinChangesNothing) {
  CoreHarness h;
  h.Register("w1", 1);
  const JobId id = h.Submit();
  h.Launch(id, 0);
  h.Step(RankFinished{7, WorkerId("w1"), h.Ref(id, 0), {}});
  EXPECT_EQ(h.rank_reply().status.code(), absl::StatusCode::kInvalidArgument);
  h.Exit(id, 0, std::nullopt, /*finished=*/true);
  EXPECT_NE(h.job(id).state, JobState::kSucceeded);
  EXPECT_EQ(h.job(id).last_cause->kind, CauseKind::kUserCode);
}

}  // namespace
}  // namespace athanor::core
