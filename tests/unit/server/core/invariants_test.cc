// Each invariant notices the state that breaks it.
#include "server/core/invariants.h"

#include "tests/unit/server/core/core_harness.h"

namespace athanor::core {
namespace {

using testing::HasSubstr;

class Invariants : public testing::Test {
 protected:
  void SetUp() override {
    h.Register("w1", 4);
    job = h.Submit({.ranks = 2});
    h.StartTraining(job);
    h.Save(job, 10);
    state = h.core.state();
    ASSERT_TRUE(CheckInvariants(state).ok());
  }
  void ExpectBreach(const std::string& what) {
    EXPECT_THAT(std::string(CheckInvariants(state).message()), HasSubstr(what));
  }
  CoreHarness h;
  JobId job;
  ClusterState state;
};

TEST_F(Invariants, ARunningJobHasALiveGeneration) {
  state.generations[job][1].state = GenerationState::kFailed;
  state.workers.at(WorkerId("w1")).used.clear();
  ExpectBreach("is Running without a live generation");
}

TEST_F(Invariants, AQueuedJobHasNone) {
  state.jobs.at(job).state = JobState::kQueued;
  ExpectBreach("is Queued with a live generation");
}

TEST_F(Invariants, OnlyTheNewestGenerationLives) {
  state.jobs.at(job).generation = 2;
  ExpectBreach("has the live generation 1 besides its newest 2");
}

TEST_F(Invariants, ASlotHoldsOneRank) {
  state.generations[job][1].ranks[1].placement.slots = {0};
  ExpectBreach("slot 0 of w1 holds two ranks");
}

TEST_F(Invariants, UsedSlotsAreThoseOfLiveRanks) {
  state.workers.at(WorkerId("w1")).used.erase(1);
  ExpectBreach("the slots in use of w1 are not those of the live generations");
}

TEST_F(Invariants, ALostWorkerHoldsNothing) {
  state.workers.at(WorkerId("w1")).state = WorkerState::kLost;
  ExpectBreach("the lost worker w1 holds ranks");
}

TEST_F(Invariants, AliasesPointAtCommittedCheckpoints) {
  state.jobs.at(job).aliases["good"] = 11;
  ExpectBreach("'good' of job-1 points at step 11, which is not committed");
}

TEST_F(Invariants, LatestIsTheNewest) {
  state.checkpoints[job][20] = state.checkpoints[job][10];
  state.checkpoints[job][20].step = 20;
  ExpectBreach("'latest' of job-1 is not 20");
}

TEST_F(Invariants, ACommittedCheckpointIsWhole) {
  state.checkpoints[job][10].shards.erase(1);
  ExpectBreach("is Committed without all shards");
}

TEST_F(Invariants, WhatIsOverHasAnEnd) {
  state.generations.erase(job);
  state.workers.at(WorkerId("w1")).used.clear();
  state.jobs.at(job).state = JobState::kSucceeded;
  ExpectBreach("is over without an end time");
}

}  // namespace
}  // namespace athanor::core
