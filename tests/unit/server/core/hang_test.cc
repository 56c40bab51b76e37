// What counts as standing still, and who is blamed for it.
#include "tests/unit/server/core/core_harness.h"

namespace athanor::core {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class Hang : public ::testing::Test {
 protected:
  Hang() {
    h.Register("w1", 4);
    TimeoutsSpec timeouts;
    timeouts.hang = absl::Seconds(10);
    job = h.Submit({.ranks = 3, .timeouts = timeouts});
    h.StartTraining(job);
  }
  void Report(Rank rank, Step step, const std::string& phase, int64_t done, int64_t exchanges = 0) {
    RankReport report{h.Ref(job, rank), {}, absl::ZeroDuration()};
    report.progress.step = step;
    report.progress.phase = phase;
    report.progress.resumed_from_step = -1;
    report.progress.phase_progress = done;
    report.progress.exchanges = exchanges;
    h.Beat("w1", {report});
  }
  CoreHarness h;
  JobId job;
};

// Batches of an evaluation, bytes of a restore and of the last write: each may take as long as it advances.
TEST_F(Hang, APhaseThatAdvancesGoesOnForAsLongAsItTakes) {
  for (const char* phase : {"restoring", "evaluating", "saving", "finishing"}) {
    for (int64_t done = 0; done < 100; ++done) {
      Report(0, 5, phase, done);
      for (Rank rank : {1, 2}) Report(rank, 5, phase, 7);  // they wait
      h.Pass(absl::Seconds(90));
      ASSERT_EQ(h.generation(job).state, GenerationState::kTraining) << phase << " after " << done;
    }
  }
  h.Pass(absl::Seconds(20));
  EXPECT_EQ(h.generation(job).cause->kind, CauseKind::kHang) << "and then no longer";
}

TEST_F(Hang, TheRankThatDoesNotArriveIsBlamedNotRankZero) {
  for (int beat = 0; beat < 4; ++beat) {
    for (Rank rank : {0, 1, 2}) Report(rank, 8, "training", 0, rank == 2 ? 16 : 17);
    h.Pass(absl::Seconds(4));
  }
  ASSERT_TRUE(h.generation(job).cause.has_value());
  const FailureCause& cause = *h.generation(job).cause;
  EXPECT_EQ(cause.kind, CauseKind::kHang);
  EXPECT_EQ(cause.rank, 2);
  EXPECT_THAT(cause.detail, AllOf(HasSubstr("rank 2 on w1, did not come to exchange 17, where 2 of 3 ranks wait"),
                                  HasSubstr("at step 8 while training")));
}

TEST_F(Hang, OnlyTheLateRanksAreAskedForTheirStacks) {
  for (Rank rank : {0, 1, 2}) Report(rank, 8, "training", 0, rank == 1 ? 16 : 17);
  for (int i = 0; i < 20 && h.generation(job).state == GenerationState::kTraining; ++i) {
    for (Rank rank : {0, 1, 2}) Report(rank, 8, "training", 0, rank == 1 ? 16 : 17);
    h.now += absl::Seconds(1);
    h.Step(DeadlineReached{});
  }
  std::map<Rank, bool> asked;
  for (const StopTrainer& stop : h.All<StopTrainer>()) asked[stop.id.rank] = stop.dump_stacks;
  EXPECT_EQ(asked, (std::map<Rank, bool>{{0, false}, {1, true}, {2, false}}));
  h.Step(RankStacks{WorkerId("w1"), h.Ref(job, 1), "#0 read\n#1 LoadBatch"});
  EXPECT_THAT(h.Told(job, "StackDump"), HasSubstr("LoadBatch"));
  EXPECT_EQ(h.history[job].back().rank, 1);
}

TEST_F(Hang, StacksOfRanksThatAreNotThereAreFenced) {
  h.Step(RankStacks{WorkerId("w2"), h.Ref(job, 1), "text"});
  h.Step(RankStacks{WorkerId("w1"), {job, 9, 0}, "text"});
  h.Step(RankStacks{WorkerId("w1"), {job, 1, 7}, "text"});
  EXPECT_EQ(h.Told(job, "StackDump"), "");
}

TEST_F(Hang, WhereNobodyIsBehindNobodyIsBlamed) {
  for (int beat = 0; beat < 4; ++beat) {
    for (Rank rank : {0, 1, 2}) Report(rank, 8, "training", 0, 17);
    h.Pass(absl::Seconds(4));
  }
  ASSERT_TRUE(h.generation(job).cause.has_value());
  EXPECT_EQ(h.generation(job).cause->rank, -1);
  EXPECT_THAT(h.generation(job).cause->detail, HasSubstr("no rank is behind the others"));
}

TEST_F(Hang, ASilentRankIsBlamedFirst) {
  Report(1, 8, "training", 0, 17);
  for (int beat = 0; beat < 5; ++beat) {
    for (Rank rank : {0, 2}) Report(rank, 8, "training", 0, rank == 0 ? 16 : 17);
    h.Pass(absl::Seconds(4));
  }
  EXPECT_EQ(h.generation(job).cause->rank, 1);
  EXPECT_THAT(h.generation(job).cause->detail, HasSubstr("not heard for"));
}

TEST_F(Hang, ARankThatReadsItsDataIsSaidToLoad) {
  TimeoutsSpec timeouts;
  timeouts.startup = absl::Seconds(20);
  const JobId other = h.Submit({.timeouts = timeouts});
  h.StartTraining(other);
  h.Progress(other, 0, 0, "loading");
  for (int beat = 0; beat < 8; ++beat) {
    h.Pass(absl::Seconds(4));
    if (h.generation(other).state == GenerationState::kTraining) h.Progress(other, 0, 0, "loading");
  }
  EXPECT_THAT(h.generation(other).cause->detail,
              AllOf(HasSubstr("at step 0 while loading"), Not(HasSubstr("joining"))));
}

}  // namespace
}  // namespace athanor::core
