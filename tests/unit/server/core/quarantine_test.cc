// A worker on which no rank can be started must not eat the queue.
#include "tests/unit/server/core/core_harness.h"

namespace athanor::core {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Quarantined : public ::testing::Test {
 protected:
  // The job's rank could not be started.
  void FailLaunch(const JobId& job) { h.Exit(job, 0, h.Cause(CauseKind::kLaunchFailed, "exit code 127")); }
  CoreHarness h;
};

TEST_F(Quarantined, AnotherWorkerIsTriedFirst) {
  h.Register("bad", 1);
  h.Register("good", 2);
  const JobId job = h.Submit();
  ASSERT_EQ(h.Seat(job, 0).str(), "bad") << "the tightest fit";
  FailLaunch(job);
  EXPECT_EQ(h.job(job).state, JobState::kRunning);
  EXPECT_EQ(h.Seat(job, 0).str(), "good");
}

TEST_F(Quarantined, TheOthersAreWaitedForWhenTheyAreFull) {
  h.Register("bad", 1);
  h.Register("good", 1);
  const JobId job = h.Submit({.name = "first"});
  const JobId other = h.Submit({.name = "second"});
  ASSERT_EQ(h.Seat(job, 0).str(), "bad");
  FailLaunch(job);
  EXPECT_EQ(h.job(job).state, JobState::kQueued);
  EXPECT_THAT(h.job(job).reason, HasSubstr("on other workers than bad, where its launch failed"));
  h.StartTraining(other);
  h.Finish(other);
  EXPECT_EQ(h.Seat(job, 0).str(), "good");
}

TEST_F(Quarantined, WhereItIsTheOnlyOneItIsTriedAgain) {
  h.Register("only", 1);
  const JobId job = h.Submit();
  FailLaunch(job);
  EXPECT_EQ(h.job(job).state, JobState::kRunning);
  EXPECT_EQ(h.job(job).generation, 2);
}

TEST_F(Quarantined, ALaunchThatSucceedsElsewhereProvesTheWorkersFault) {
  h.Register("bad", 1);
  h.Register("good", 2);
  const JobId job = h.Submit();
  FailLaunch(job);
  EXPECT_EQ(h.worker("bad").state, WorkerState::kReady) << "one failure may be the job's";
  h.StartTraining(job);
  EXPECT_EQ(h.worker("bad").state, WorkerState::kQuarantined);
  EXPECT_THAT(h.worker("bad").reason, AllOf(HasSubstr("quarantined for 30s"), HasSubstr("succeeded on good")));
  EXPECT_THAT(h.Told(job, "WorkerQuarantined"), HasSubstr("bad: "));
  bool noted = false;
  for (const Note& note : h.All<Note>()) noted = noted || note.kind == Note::Kind::kQuarantine;
  EXPECT_TRUE(noted);
  const JobId next = h.Submit({.name = "next"});
  EXPECT_EQ(h.Seat(next, 0).str(), "good");
  const JobId waits = h.Submit({.name = "waits"});
  std::string explained;
  for (const std::string& line : h.core.Explain(waits, h.now)) explained += line + "\n";
  EXPECT_THAT(explained, HasSubstr("bad takes no ranks: quarantined for 30s"));
}

// A slow join is late proof that the worker is sound: the quarantine must not outlive its timer.
TEST_F(Quarantined, RanksThatJoinMeanwhileEndIt) {
  h.Register("bad", 2);
  h.Register("good", 3);
  const JobId slow = h.Submit({.name = "slow"});
  const JobId job = h.Submit();
  ASSERT_EQ(h.Seat(slow, 0).str(), "bad");
  ASSERT_EQ(h.Seat(job, 0).str(), "bad");
  FailLaunch(job);
  h.StartTraining(job);
  ASSERT_EQ(h.worker("bad").state, WorkerState::kQuarantined);
  h.StartTraining(slow);
  EXPECT_EQ(h.worker("bad").state, WorkerState::kReady);
  EXPECT_THAT(h.worker("bad").reason, HasSubstr("ranks have started here after all"));
}

// Ten jobs, one broken worker that is always the tightest fit: the broken one costs a start or two, not the queue.
TEST_F(Quarantined, TheQueueIsNotEaten) {
  h.Register("bad", 1);
  h.Register("good", 2);
  std::vector<JobId> jobs;
  for (int i = 0; i < 10; ++i) jobs.push_back(h.Submit());
  int done = 0, launches_that_failed = 0;
  for (int round = 0; round < 200 && done < 10; ++round) {
    for (const JobId& job : jobs) {
      if (h.job(job).state != JobState::kRunning) continue;
      if (h.Seat(job, 0).str() == "bad") {
        FailLaunch(job);
        ++launches_that_failed;
      } else {
        h.StartTraining(job);
        h.Finish(job);
        ++done;
      }
    }
    h.Pass(absl::Milliseconds(100));
  }
  EXPECT_EQ(done, 10);
  EXPECT_LE(launches_that_failed, 3);
}

TEST_F(Quarantined, WithoutProofItTakesSeveralJobs) {
  h.Register("bad", 3);
  RestartPolicySpec never;
  never.budgets[CauseKind::kLaunchFailed] = 0;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(h.worker("bad").state, WorkerState::kReady) << i;
    FailLaunch(h.Submit({.restart = never}));
  }
  EXPECT_EQ(h.worker("bad").state, WorkerState::kQuarantined);
  EXPECT_THAT(h.worker("bad").reason, HasSubstr("launches of 3 jobs failed here in a row"));
}

TEST_F(Quarantined, OneBrokenJobQuarantinesNobody) {
  h.Register("w1", 1);
  h.Register("w2", 1);
  RestartPolicySpec often;
  often.budgets[CauseKind::kLaunchFailed] = 8;
  often.max_generations_without_progress = 20;
  const JobId job = h.Submit({.restart = often});
  while (h.job(job).state != JobState::kFailed) {
    if (h.job(job).state == JobState::kRunning) FailLaunch(job);
    h.Pass(absl::Seconds(5));
  }
  EXPECT_EQ(h.worker("w1").state, WorkerState::kReady);
  EXPECT_EQ(h.worker("w2").state, WorkerState::kReady);
}

TEST_F(Quarantined, ItEndsByItselfAndTheNextLaunchIsTheProbe) {
  h.Register("bad", 1);
  h.Register("good", 2);
  const JobId job = h.Submit();
  FailLaunch(job);
  h.StartTraining(job);
  ASSERT_EQ(h.worker("bad").state, WorkerState::kQuarantined);
  h.Pass(absl::Seconds(31));
  EXPECT_EQ(h.worker("bad").state, WorkerState::kReady);
  const JobId probe = h.Submit({.name = "probe"});
  ASSERT_EQ(h.Seat(probe, 0).str(), "bad");
  FailLaunch(probe);
  EXPECT_EQ(h.worker("bad").state, WorkerState::kQuarantined) << "one failure is enough now";
  EXPECT_THAT(h.worker("bad").reason, HasSubstr("quarantined for 1m"));
  h.Pass(absl::Seconds(61));
  const JobId second = h.Submit({.name = "second"});
  ASSERT_EQ(h.Seat(second, 0).str(), "bad");
  h.StartTraining(second);
  EXPECT_EQ(h.worker("bad").quarantines, 0) << "cleared";
}

TEST_F(Quarantined, UndrainAndANewAgentClearIt) {
  h.Register("bad", 1);
  h.Register("good", 1);
  const JobId job = h.Submit();
  FailLaunch(job);
  h.StartTraining(job);
  ASSERT_EQ(h.worker("bad").state, WorkerState::kQuarantined);
  EXPECT_TRUE(h.Verb(UndrainWorker{.worker = WorkerId("bad")}).status.ok());
  EXPECT_EQ(h.worker("bad").state, WorkerState::kReady);
  EXPECT_EQ(h.worker("bad").quarantines, 0);
  const JobId next = h.Submit({.name = "next"});
  EXPECT_EQ(h.Seat(next, 0).str(), "bad");
}

TEST_F(Quarantined, ARestartOfTheCoordinatorKeepsIt) {
  h.Register("bad", 1);
  h.Register("good", 2);
  const JobId job = h.Submit();
  FailLaunch(job);
  h.StartTraining(job);
  ClusterState stored = h.core.state();
  for (auto& [id, worker] : stored.workers) {
    worker.session = 0;
    worker.used.clear();
    worker.launch_failures.clear();
  }
  CoreHarness after(PatientOptions(), stored);
  EXPECT_EQ(after.worker("bad").state, WorkerState::kQuarantined);
  after.Pass(absl::Seconds(31));
  EXPECT_EQ(after.worker("bad").state, WorkerState::kReady);
}

}  // namespace
}  // namespace athanor::core
