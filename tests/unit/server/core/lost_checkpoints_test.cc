// A job that had checkpoints and cannot read them neither begins again by itself nor loses a file; and none is told to
// be better off than its newest checkpoint.
#include "tests/unit/server/core/core_harness.h"

namespace athanor::core {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class LostCheckpoints : public ::testing::Test {
 protected:
  LostCheckpoints() {
    h.Register("w1", 2);
    job = h.Submit({.keep = 2});
    h.StartTraining(job);
    for (Step step : {10, 20, 30}) h.Save(job, step);
  }
  void Damage(Step step) { h.Step(CheckpointDamaged{5, h.Seat(job, 0), h.Ref(job, 0), step, "CRC32C differs"}); }
  void Report(Step step, int64_t failures = 0, const std::string& error = "") {
    RankReport report{h.Ref(job, 0), {}, absl::ZeroDuration()};
    report.progress.step = step;
    report.progress.phase = "training";
    report.progress.checkpoint_failures = failures;
    report.progress.checkpoint_error = error;
    h.Beat("w1", {report});
  }
  CoreHarness h;
  JobId job;
};

TEST_F(LostCheckpoints, AStorageThatIsAwayIsWaitedForWithoutLimit) {
  h.Exit(job, 0, h.Cause(CauseKind::kSignal));
  for (int i = 0; i < 40; ++i) {
    for (int s = 0; s < 80 && h.job(job).state != JobState::kRunning; ++s) h.Pass(absl::Seconds(1));
    ASSERT_EQ(h.job(job).state, JobState::kRunning) << i;
    EXPECT_EQ(h.generation(job).resume_step, 30) << "nothing was given up";
    h.StartTraining(job);
    h.Exit(job, 0, h.Cause(CauseKind::kStorage, "the checkpoint storage is not at /mnt"));
    ASSERT_EQ(h.job(job).state, JobState::kBackingOff) << h.job(job).reason;
  }
  EXPECT_THAT(h.job(job).reason, AllOf(HasSubstr("storage 40 of unlimited"), HasSubstr("is not at /mnt")));
  EXPECT_THAT(h.core.Explain(job, h.now)[0], HasSubstr("is not at /mnt"));
  EXPECT_LE(h.job(job).generations_without_progress, 1) << "no fault of the job";
  EXPECT_EQ(h.checkpoint(job, 30).state, CheckpointState::kCommitted);
}

TEST_F(LostCheckpoints, NothingIsDeletedOfAJobThatFailsToRead) {
  h.Exit(job, 0, h.Cause(CauseKind::kStorage, "away"));
  EXPECT_TRUE(h.Verb(CancelJob{.job = job.str()}).status.ok());
  EXPECT_THAT(h.All<DeleteFiles>(), IsEmpty());
  EXPECT_EQ(h.checkpoint(job, 20).state, CheckpointState::kCommitted);
}

TEST_F(LostCheckpoints, RetentionKeepsDamagedFolders) {
  Damage(30);
  for (Step step : {40, 50, 60, 70}) h.Save(job, step);
  EXPECT_EQ(h.checkpoint(job, 30).state, CheckpointState::kDamaged);
  h.Finish(job);
  EXPECT_EQ(h.checkpoint(job, 30).state, CheckpointState::kDamaged) << "kept as evidence, until somebody deletes it";
}

TEST_F(LostCheckpoints, WhenAllAreDamagedTheJobEndsAndDoesNotBeginAgain) {
  Damage(30);
  Damage(20);
  h.Exit(job, 0, h.Cause(CauseKind::kData, "none of 2 checkpoints is whole"));
  EXPECT_EQ(h.job(job).state, JobState::kFailed);
  EXPECT_THAT(h.job(job).reason,
              AllOf(HasSubstr("none of its checkpoints can be read"), HasSubstr("kept as evidence")));
  EXPECT_EQ(h.checkpoint(job, 20).state, CheckpointState::kDamaged);
}

TEST_F(LostCheckpoints, OneThatIsLeftIsTaken) {
  Damage(30);
  h.Exit(job, 0, h.Cause(CauseKind::kSignal));
  h.Pass(absl::Seconds(1));
  EXPECT_EQ(h.generation(job).resume_step, 20);
}

TEST_F(LostCheckpoints, ASuspendedJobBeginsAgainOnlyByTheUsersWish) {
  Damage(30);
  Damage(20);
  EXPECT_TRUE(h.Verb(SuspendJob{.job = job.str()}).status.ok());
  h.Exit(job, 0, h.Cause(CauseKind::kPreempted));
  EXPECT_THAT(h.job(job).reason, HasSubstr("none of its checkpoints can be read"));
  const Reply refused = h.Verb(ResumeJob{.job = job.str()});
  EXPECT_TRUE(absl::IsFailedPrecondition(refused.status));
  EXPECT_THAT(std::string(refused.status.message()), HasSubstr("--from-scratch"));
  EXPECT_TRUE(h.Verb(ResumeJob{.job = job.str(), .from_scratch = true}).status.ok());
  EXPECT_EQ(h.job(job).state, JobState::kRunning);
  EXPECT_EQ(h.generation(job).resume_step, -1);
  h.StartTraining(job);
  h.Exit(job, 0, h.Cause(CauseKind::kSignal));
  h.Pass(absl::Seconds(1));
  EXPECT_EQ(h.job(job).state, JobState::kRunning) << "what was set aside counts no more";
}

TEST_F(LostCheckpoints, FromScratchSetsWholeOnesAsideAndKeepsThem) {
  EXPECT_TRUE(h.Verb(SuspendJob{.job = job.str()}).status.ok());
  h.Exit(job, 0, h.Cause(CauseKind::kPreempted));
  EXPECT_TRUE(h.Verb(ResumeJob{.job = job.str(), .from_scratch = true}).status.ok());
  EXPECT_EQ(h.generation(job).resume_step, -1);
  EXPECT_THAT(h.checkpoint(job, 30).note, HasSubstr("set aside"));
  h.StartTraining(job);
  h.Save(job, 20);
  EXPECT_EQ(h.job(job).aliases.at("latest"), 20);
}

TEST_F(LostCheckpoints, AParentIsNoSubstituteForItsOwn) {
  h.Finish(job);
  const JobId child = h.Submit({.name = "child", .parent_job = job.str()});
  h.Launch(child, 0);
  h.Join(child, 0);
  ASSERT_EQ(h.rank_reply().plan.resume.size(), 1u);
  EXPECT_EQ(h.rank_reply().plan.resume[0].job, job);
  h.Save(child, 5);
  h.Exit(child, 0, h.Cause(CauseKind::kSignal));
  h.Pass(absl::Seconds(1));
  h.Launch(child, 0);
  h.Join(child, 0);
  ASSERT_EQ(h.rank_reply().plan.resume.size(), 1u);
  EXPECT_EQ(h.rank_reply().plan.resume[0].job, child);
}

TEST_F(LostCheckpoints, WhereACheckpointLiesIsToldToWhoResumesAndWhoDeletes) {
  for (Rank rank : {0}) h.Vote(job, rank, 40);
  ManifestCommitted manifest{77, h.Seat(job, 0), h.Ref(job, 0), 40, 100, {}, false, 0.1};
  manifest.storage = "id-1";
  h.Step(manifest);
  h.Exit(job, 0, h.Cause(CauseKind::kSignal));
  h.Pass(absl::Seconds(1));
  h.Launch(job, 0);
  h.Join(job, 0);
  ASSERT_FALSE(h.rank_reply().plan.resume.empty());
  EXPECT_EQ(h.rank_reply().plan.resume[0].storage, "id-1");
}

TEST_F(LostCheckpoints, WhatCouldNotBeDeletedIsTriedAgainWithTheNextCommit) {
  ASSERT_EQ(h.checkpoint(job, 10).state, CheckpointState::kDeleting);
  h.Save(job, 40);
  const auto asked = [this] {
    std::vector<Step> steps;
    for (const DeleteFiles& one : h.All<DeleteFiles>()) steps.push_back(one.step);
    return steps;
  };
  EXPECT_THAT(asked(), testing::ElementsAre(20)) << "10 is under way";
  h.Step(FilesDeleted{WorkerId("w1"), job, 10, "the checkpoint storage is not at /mnt"});
  EXPECT_EQ(h.checkpoint(job, 10).state, CheckpointState::kDeleting) << "its record stays while its files may";
  h.Save(job, 50);
  EXPECT_THAT(asked(), testing::UnorderedElementsAre(10, 30));
  h.Step(FilesDeleted{WorkerId("w1"), job, 10, ""});
  EXPECT_FALSE(h.core.state().checkpoints.at(job).contains(10));
}

TEST_F(LostCheckpoints, ASuccessWhoseLastCheckpointIsMissingSaysSo) {
  Report(40, 1, "cannot write shard: No space left on device");
  h.Finish(job);
  EXPECT_EQ(h.job(job).state, JobState::kSucceeded);
  EXPECT_EQ(h.job(job).reason,
            "finished at step 40; its newest checkpoint is of step 30, not of 40: a later one could not be written: "
            "cannot write shard: No space left on device");
  EXPECT_THAT(CheckpointWarning(h.core.state(), h.job(job)), HasSubstr("No space left"));
}

TEST_F(LostCheckpoints, ARunningJobSaysHowFarItsNewestLagsBehind) {
  Report(40);
  EXPECT_EQ(CheckpointWarning(h.core.state(), h.job(job)), "") << "within its interval";
  h.Step(CheckpointAbandoned{.worker = h.Seat(job, 0), .id = h.Ref(job, 0), .step = 40, .reason = "disk"});
  Report(45, 1, "No space left on device");
  EXPECT_THAT(CheckpointWarning(h.core.state(), h.job(job)),
              AllOf(HasSubstr("newest checkpoint is of step 30, not of 45"), HasSubstr("No space left")));
  h.Save(job, 50);
  Report(55, 1, "No space left on device");
  EXPECT_EQ(CheckpointWarning(h.core.state(), h.job(job)), "") << "there is a newer one";
  Report(200, 1, "No space left on device");
  EXPECT_THAT(CheckpointWarning(h.core.state(), h.job(job)), HasSubstr("more than 3 intervals behind"));
}

TEST_F(LostCheckpoints, CommitsAreSummedUpInTheHistory) {
  for (Step step = 40; step <= 1000; step += 10) h.Save(job, step);
  const auto count = [&] {
    const auto& events = h.history[job];
    return std::count_if(events.begin(), events.end(), [](const auto& e) { return e.type == "CheckpointCommitted"; });
  };
  EXPECT_EQ(count(), 3);
  h.Pass(absl::Minutes(2));
  h.Save(job, 1010);
  EXPECT_EQ(count(), 4);
  EXPECT_THAT(h.Told(job, "CheckpointCommitted"), HasSubstr("98 of them, the last: step-000000001010"));
  h.Save(job, 1020);
  h.Finish(job);
  EXPECT_THAT(h.Told(job, "CheckpointCommitted"), HasSubstr("step-000000001020")) << "the rest is said at the end";
}

}  // namespace
}  // namespace athanor::core
