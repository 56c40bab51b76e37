// Where gangs go, and in which order: the pure placement, then the queue of a whole core.
#include "server/core/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "tests/unit/server/core/core_harness.h"

namespace athanor::core {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

FreeSlots Free(const std::string& worker, std::vector<int32_t> slots, const std::string& device = "cpu") {
  return {WorkerId(worker), device, std::move(slots)};
}

TEST(Place, AllRanksOrNone) {
  const PlacementResult result = Place({.ranks = 4}, {Free("a", {0, 1}), Free("b", {0})});
  EXPECT_FALSE(result.placed);
  EXPECT_TRUE(result.placement.empty());
  EXPECT_EQ(result.reason, "needs 4 x 1 cpu slots at once, room for 3 ranks is free");
}

TEST(Place, TheTightestSingleWorkerWins) {
  const PlacementResult result = Place({.ranks = 2}, {Free("a", {0, 1, 2, 3}), Free("b", {1, 3, 4}), Free("c", {5})});
  ASSERT_TRUE(result.placed);
  EXPECT_THAT(result.placement, ElementsAre(Placement{0, WorkerId("b"), {1}}, Placement{1, WorkerId("b"), {3}}));
  EXPECT_THAT(result.reason, HasSubstr("b, the tightest fit"));
}

TEST(Place, ElseFewWorkersEmptiestFirst) {
  const PlacementResult result = Place({.ranks = 5}, {Free("a", {0}), Free("b", {0, 1}), Free("c", {0, 1, 2, 3})});
  ASSERT_TRUE(result.placed);
  EXPECT_EQ(result.placement[3].worker, WorkerId("c"));
  EXPECT_EQ(result.placement[4], (Placement{4, WorkerId("b"), {0}}));
  EXPECT_THAT(result.reason, HasSubstr("5 ranks over 2 workers"));
}

// Slots of one rank never spread over two workers.
TEST(Place, ARankHasItsSlotsOnOneWorker) {
  EXPECT_FALSE(Place({.ranks = 1, .slots_per_rank = 2}, {Free("a", {0}), Free("b", {0})}).placed);
  const PlacementResult result =
      Place({.ranks = 2, .slots_per_rank = 2}, {Free("a", {0, 1, 2}), Free("b", {4, 6}), Free("c", {0})});
  ASSERT_TRUE(result.placed);
  EXPECT_THAT(result.placement, ElementsAre(Placement{0, WorkerId("a"), {0, 1}}, Placement{1, WorkerId("b"), {4, 6}}));
}

TEST(Place, OnlyOnTheDeviceAskedFor) {
  const std::vector<FreeSlots> free = {Free("a", {0, 1}, "cuda"), Free("b", {0})};
  EXPECT_FALSE(Place({.ranks = 2}, free).placed);
  EXPECT_EQ(Place({.ranks = 2, .device = "cuda"}, free).placement[1].worker, WorkerId("a"));
}

TEST(Queue, HigherPriorityThenOlderFirst) {
  CoreHarness h;
  const JobId old_low = h.Submit({.name = "old-low"});
  const JobId young_low = h.Submit({.name = "young-low"});
  const JobId high = h.Submit({.name = "high", .priority = 5});
  EXPECT_EQ(h.core.QueuePosition(high), 1);
  EXPECT_EQ(h.core.QueuePosition(old_low), 2);
  EXPECT_EQ(h.core.QueuePosition(young_low), 3);
  h.Register("w1", 1);
  EXPECT_EQ(h.job(high).state, JobState::kRunning);
  EXPECT_EQ(h.core.QueuePosition(high), 0);
  h.StartTraining(high);
  h.Finish(high);
  EXPECT_EQ(h.job(old_low).state, JobState::kRunning);
  EXPECT_EQ(h.job(young_low).state, JobState::kQueued);
}

// Younger jobs that would fit must not starve the head of the queue.
TEST(Queue, TheHeadBlocksYoungerOnesOfItsDevice) {
  CoreHarness h;
  h.Register("w1", 4);
  h.Register("g1", 1, "cuda");
  const JobId running = h.Submit({.name = "running", .ranks = 2});
  const JobId head = h.Submit({.name = "head", .ranks = 4});
  const JobId small = h.Submit({.name = "small", .ranks = 1});
  const JobId other = h.Submit({.name = "other", .device = "cuda"});
  EXPECT_EQ(h.job(head).reason, "next: needs 4 x 1 cpu slots at once, room for 2 ranks is free");
  EXPECT_EQ(h.job(small).state, JobState::kQueued);
  EXPECT_EQ(h.core.Reason(small), absl::StrCat("waits behind ", head.str()));
  EXPECT_EQ(h.core.Explain(small, h.now)[0], absl::StrCat("small-3 is Queued: waits behind ", head.str()));
  EXPECT_EQ(h.job(other).state, JobState::kRunning) << "another device kind is another queue";
  h.StartTraining(running);
  h.Finish(running);
  EXPECT_EQ(h.job(head).state, JobState::kRunning);
}

TEST(Queue, WhoWaitsBehindACancelledHeadGoesAtOnce) {
  CoreHarness h;
  h.Register("w1", 4);
  const JobId running = h.Submit({.name = "running", .ranks = 2});
  const JobId head = h.Submit({.name = "head", .ranks = 4});
  const JobId small = h.Submit({.name = "small", .ranks = 2});
  EXPECT_EQ(h.job(small).state, JobState::kQueued);
  EXPECT_TRUE(h.Verb(CancelJob{.job = head.str()}).status.ok());
  EXPECT_EQ(h.job(small).state, JobState::kRunning);
}

TEST(Queue, WhomAJobWaitsForIsSaidAsOfNow) {
  CoreHarness h;
  h.Register("w1", 2);
  const JobId running = h.Submit({.name = "running", .ranks = 2});
  const JobId first = h.Submit({.name = "first", .ranks = 2});
  const JobId second = h.Submit({.name = "second", .ranks = 2});
  const JobId third = h.Submit({.name = "third", .ranks = 2});
  EXPECT_EQ(h.core.Reason(third), absl::StrCat("waits behind ", first.str()));
  h.StartTraining(running);
  h.Finish(running);
  EXPECT_EQ(h.job(first).state, JobState::kRunning);
  EXPECT_EQ(h.core.Reason(third), absl::StrCat("waits behind ", second.str())) << "the first is gone";
  EXPECT_THAT(h.core.Reason(second), HasSubstr("next: "));
  EXPECT_TRUE(h.Verb(CancelJob{.job = second.str()}).status.ok());
  EXPECT_THAT(h.core.Reason(third), HasSubstr("next: "));
}

// A stream of narrow jobs of higher priority always finds a slot; the wide one needs all of them at once.
TEST(Queue, AWideJobOfLowPriorityIsOvertakenABoundedNumberOfTimes) {
  CoreOptions options = PatientOptions();
  options.max_overtaken = 4;
  CoreHarness h(options);
  h.Register("w1", 2);
  std::deque<JobId> narrow = {h.Submit({.name = "n", .priority = 10}), h.Submit({.name = "n", .priority = 10})};
  const JobId wide = h.Submit({.name = "wide", .ranks = 2});
  const JobId later = h.Submit({.name = "later", .priority = 5});
  int started = 0;
  for (; h.job(wide).state == JobState::kQueued && started < 50; ++started) {
    const JobId next = h.Submit({.name = "n", .priority = 10});  // the next of the stream waits already
    const JobId done = narrow.front();
    narrow.pop_front();
    h.StartTraining(done);
    h.Finish(done);
    if (h.job(next).state == JobState::kRunning) narrow.push_back(next);
    if (narrow.empty()) break;
  }
  EXPECT_EQ(h.job(wide).state, JobState::kRunning) << "after " << started << " starts";
  EXPECT_LT(started, 10);
  EXPECT_THAT(h.Told(wide, "Reserved"), HasSubstr("4 younger jobs of higher priority were started before it"));
  EXPECT_THAT(h.Told(wide, "Waiting"), HasSubstr("slots are kept for it"));
  EXPECT_EQ(h.job(later).state, JobState::kQueued) << "the others keep their order";
}

TEST(Queue, ManyOfOneShapeWaitAsideAndComeBackInOrder) {
  CoreHarness h;
  const JobId first = h.Submit({.name = "first", .ranks = 2});
  const JobId second = h.Submit({.name = "second", .ranks = 2});
  const JobId urgent = h.Submit({.name = "urgent", .ranks = 2, .priority = 1});
  const JobId other = h.Submit({.name = "other", .device = "cuda"});
  for (const JobId& id : {first, second, urgent, other})
    EXPECT_THAT(h.job(id).reason, HasSubstr("waits for more workers")) << id.str();
  h.Register("w1", 2);
  EXPECT_EQ(h.job(urgent).state, JobState::kRunning);
  EXPECT_EQ(h.core.QueuePosition(first), 1);
  EXPECT_EQ(h.core.QueuePosition(second), 2);
  EXPECT_EQ(h.job(other).state, JobState::kQueued);
  h.StartTraining(urgent);
  h.Finish(urgent);
  EXPECT_EQ(h.job(first).state, JobState::kRunning);
  EXPECT_EQ(h.job(second).state, JobState::kQueued);
}

TEST(Queue, WhatNeverFitsWaitsAside) {
  CoreHarness h;
  h.Register("w1", 2);
  const JobId huge = h.Submit({.name = "huge", .ranks = 8, .priority = 100});
  const JobId small = h.Submit({.name = "small", .ranks = 2});
  EXPECT_THAT(h.job(huge).reason, AllOf(HasSubstr("waits for more workers"), HasSubstr("even with every slot free")));
  EXPECT_EQ(h.job(small).state, JobState::kRunning);
  h.Register("w2", 8);
  EXPECT_EQ(h.job(huge).state, JobState::kRunning);
}

TEST(Queue, PreemptsTheLowestAndYoungestAndNoMoreThanNeeded) {
  CoreHarness h;
  h.Register("w1", 4);
  const JobId old = h.Submit({.name = "old", .ranks = 2, .preemptible = true});
  const JobId young = h.Submit({.name = "young", .ranks = 2, .preemptible = true});
  h.StartTraining(old);
  h.StartTraining(young);
  const JobId head = h.Submit({.name = "head", .ranks = 2, .priority = 10});
  EXPECT_EQ(h.job(head).reason, "next: preempting jobs of lower priority");
  EXPECT_EQ(h.generation(old).state, GenerationState::kTraining);
  EXPECT_EQ(h.generation(young).state, GenerationState::kStopping);
  EXPECT_THAT(h.Told(young, "Preempted"), HasSubstr(absl::StrCat("preempted for ", head.str(), " of priority 10")));
  for (const StopTrainer& stop : h.All<StopTrainer>()) EXPECT_EQ(stop.mode, StopMode::kSaveAndLeave);
  h.Exit(young, 0, h.Cause(CauseKind::kPreempted));
  h.Exit(young, 1, h.Cause(CauseKind::kPreempted));
  EXPECT_EQ(h.job(young).state, JobState::kQueued);
  EXPECT_EQ(h.job(young).restarts_by_cause.at(CauseKind::kPreempted), 1);
  EXPECT_EQ(h.job(head).state, JobState::kRunning);
}

TEST(Queue, NobodyIsPreemptedInVain) {
  CoreHarness h;
  h.Register("w1", 4);
  const JobId fixed = h.Submit({.name = "fixed", .ranks = 2});
  const JobId soft = h.Submit({.name = "soft", .ranks = 2, .preemptible = true});
  h.StartTraining(fixed);
  h.StartTraining(soft);
  const JobId head = h.Submit({.name = "head", .ranks = 4, .priority = 10});
  EXPECT_EQ(h.generation(soft).state, GenerationState::kTraining) << "its slots would not be enough";
  EXPECT_EQ(h.job(head).state, JobState::kQueued);
  h.Submit({.name = "equal", .ranks = 2, .priority = 0});
  EXPECT_EQ(h.generation(soft).state, GenerationState::kTraining) << "equal priority preempts nobody";
}

TEST(Queue, DrainingWorkersGetNothing) {
  CoreHarness h;
  h.Register("w1", 2);
  EXPECT_TRUE(h.Verb(DrainWorker{.worker = WorkerId("w1")}).status.ok());
  EXPECT_EQ(h.worker("w1").state, WorkerState::kDrained);
  const JobId job = h.Submit();
  EXPECT_EQ(h.job(job).state, JobState::kQueued);
  EXPECT_TRUE(h.Verb(UndrainWorker{.worker = WorkerId("w1")}).status.ok());
  EXPECT_EQ(h.job(job).state, JobState::kRunning);
}

TEST(Queue, ADryRunTellsAndChangesNothing) {
  CoreHarness h;
  h.Register("w1", 2);
  h.Submit({.name = "dry", .ranks = 2, .dry_run = true});
  EXPECT_EQ(h.reply().placement.size(), 2u);
  EXPECT_THAT(h.reply().message, HasSubstr("would start now: all ranks on w1"));
  h.Submit({.name = "dry", .ranks = 3, .dry_run = true});
  EXPECT_THAT(h.reply().message, HasSubstr("would wait for more workers"));
  h.Submit({.name = "busy", .ranks = 2});
  h.Submit({.name = "waits", .ranks = 2});
  h.Submit({.name = "dry", .ranks = 1, .dry_run = true});
  EXPECT_EQ(h.reply().message, "would wait behind 1 queued jobs");
  EXPECT_EQ(h.reply().queue_position, 2);
  EXPECT_EQ(h.All<PutRecord>().size(), 0u);
  EXPECT_EQ(h.core.state().jobs.size(), 2u);
}

TEST(Queue, IsBounded) {
  CoreOptions options = PatientOptions();
  options.max_jobs_queued = 2;
  CoreHarness h(options);
  h.Submit();
  h.Submit();
  h.Submit();
  EXPECT_EQ(h.reply().status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(h.core.state().jobs.size(), 2u);
}

}  // namespace
}  // namespace athanor::core
