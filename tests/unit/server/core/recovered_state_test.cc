// What a damaged or an older store leaves is made consistent, told in the job's history, and goes on.
#include "server/core/recovered_state.h"

#include "tests/unit/server/core/core_harness.h"

namespace athanor::core {
namespace {

using testing::HasSubstr;

// A job that trains with two ranks on w1 and has committed step 10.
ClusterState Running(JobId* id) {
  CoreHarness h;
  h.Register("w1", 4);
  *id = h.Submit({.ranks = 2});
  h.StartTraining(*id);
  h.Save(*id, 10);
  return h.core.state();
}

TEST(RecoveredState, OfASoundStoreNothingIsChanged) {
  JobId id;
  ClusterState state = Running(&id);
  EXPECT_TRUE(RepairRecovered(state, absl::FromUnixSeconds(1'700'000'000)).empty());
}

TEST(RecoveredState, AJobWhoseGenerationIsGoneWaitsAgain) {
  JobId id;
  ClusterState state = Running(&id);
  state.generations.clear();
  CoreHarness h(PatientOptions(), state);
  EXPECT_THAT(h.Told(id, "RecordRepaired"), HasSubstr("was Running without a generation that runs; is Queued"));
  h.Register("w1", 4, "cpu", CoreHarness::Running(id, 1, 2));
  EXPECT_EQ(h.job(id).state, JobState::kRunning) << "placed again";
  EXPECT_EQ(h.generation(id).number, 2) << "a number is never used twice";
  EXPECT_EQ(h.generation(id).resume_step, 10);
}

TEST(RecoveredState, AJobBetweenStatesReachesTheOneItWasGoingTo) {
  for (const auto& [was, is] : std::map<JobState, JobState>{{JobState::kSuspending, JobState::kSuspended},
                                                            {JobState::kCancelling, JobState::kCancelled}}) {
    JobId id;
    ClusterState state = Running(&id);
    state.jobs.at(id).state = was;
    state.generations.clear();
    CoreHarness h(PatientOptions(), state);
    EXPECT_EQ(h.job(id).state, is);
  }
}

TEST(RecoveredState, AGenerationThatNobodyIsAtEnds) {
  JobId id;
  ClusterState state = Running(&id);
  state.jobs.at(id).state = JobState::kSuspended;
  CoreHarness h(PatientOptions(), state);
  EXPECT_EQ(h.generation(id).state, GenerationState::kFailed);
  EXPECT_THAT(h.Told(id, "RecordRepaired"), HasSubstr("generation 1 was ended"));
}

TEST(RecoveredState, OneSlotHoldsOneRank) {
  JobId id;
  ClusterState state = Running(&id);
  JobEntry other = state.jobs.at(id);
  other.id = JobId("other-1");
  other.aliases.clear();
  state.jobs[other.id] = other;
  GenerationEntry generation = state.generations.at(id).at(1);
  generation.job = other.id;
  state.generations[other.id][1] = generation;
  CoreHarness h(PatientOptions(), state);
  EXPECT_EQ(h.generation(id).number, 1) << "goes on";
  EXPECT_EQ(h.generation(other.id).number, 2) << "was placed anew";
}

TEST(RecoveredState, AnUnknownWorkerThatHoldsRanksHasALease) {
  JobId id;
  ClusterState state = Running(&id);
  state.workers.clear();
  CoreOptions options;
  CoreHarness h(options, state);
  ASSERT_TRUE(h.core.state().workers.contains(WorkerId("w1")));
  h.Pass(options.lease * 2);
  EXPECT_NE(h.job(id).state, JobState::kRunning) << "its ranks are lost when nobody speaks for them";
}

TEST(RecoveredState, ACheckpointWithoutAllItsShardsIsNoneToStartFrom) {
  JobId id;
  ClusterState state = Running(&id);
  state.checkpoints.at(id).at(10).shards.erase(1);
  CoreHarness h(PatientOptions(), state);
  EXPECT_EQ(h.checkpoint(id, 10).state, CheckpointState::kDamaged);
  EXPECT_TRUE(h.job(id).aliases.empty());
}

// Its checkpoint's record lies aside: the files are there, but nobody can say that they are whole.
TEST(RecoveredState, AJobWhoseCheckpointsHaveNoRecordDoesNotBeginAgainByItself) {
  JobId id;
  ClusterState state = Running(&id);
  state.checkpoints.clear();
  CoreHarness h(PatientOptions(), state);
  EXPECT_THAT(h.Told(id, "RecordRepaired"), HasSubstr("'latest' (step 10)"));
  EXPECT_EQ(h.checkpoint(id, 10).state, CheckpointState::kDamaged);
  h.Register("w1", 4, "cpu", CoreHarness::Running(id, 1, 2));
  h.Fail(id, CauseKind::kSignal);
  EXPECT_EQ(h.job(id).state, JobState::kFailed);
  EXPECT_THAT(h.job(id).reason, HasSubstr("none of its checkpoints can be read"));
}

TEST(RecoveredState, OfSeveralCheckpointsTheOnesWithARecordAreTaken) {
  JobId id;
  CoreHarness before;
  before.Register("w1", 4);
  id = before.Submit({.ranks = 2});
  before.StartTraining(id);
  before.Save(id, 10);
  before.Save(id, 20);
  ClusterState state = before.core.state();
  state.checkpoints.at(id).erase(20);
  CoreHarness h(PatientOptions(), state);
  EXPECT_EQ(h.job(id).aliases.at("latest"), 10);
  h.Register("w1", 4, "cpu", CoreHarness::Running(id, 1, 2));
  h.Fail(id, CauseKind::kSignal);
  EXPECT_EQ(h.generation(id).resume_step, 10);
}

TEST(RecoveredState, ABackOffIsNoLongerThanItsPolicySays) {
  CoreHarness first;
  first.Register("w1", 1);
  const JobId id = first.Submit();
  first.StartTraining(id);
  ClusterState state = first.core.state();
  state.generations.at(id).at(1).state = GenerationState::kFailed;
  state.generations.at(id).at(1).ended_at = first.now;
  JobEntry& job = state.jobs.at(id);
  job.state = JobState::kBackingOff;
  job.retry_at = first.now + absl::Hours(24);
  job.goodput.accounted_until = first.now + absl::Hours(24);
  CoreHarness h(PatientOptions(), state);
  h.Register("w1", 1);
  h.Pass(job.spec.restart.backoff_max * 1.2);
  EXPECT_EQ(h.job(id).state, JobState::kRunning);
}

}  // namespace
}  // namespace athanor::core
