// Where a run stands, and what it tells: notes, events, hangs.
#include <fstream>
#include <future>

#include "athanor/runner/record/run_progress.h"
#include "athanor/runner/record/run_recorder.h"
#include "tests/unit/common/runner/part_fixture.h"

namespace athanor {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

class Progress : public PartTest {};

TEST_F(Progress, EachKindOfNoteGoesWhereItBelongs) {
  RunContext& context = Context();
  context.notes.Tell(Note::kFact, "a fact");
  context.notes.Tell(Note::kEvent, "an event");
  context.notes.Tell(Note::kRemark, "a remark");
  context.notes.Tell(Note::kProblem, "a problem");
  EXPECT_THAT(hooks_.notes, ElementsAre("a fact", "an event"));
  EXPECT_THAT(context.notes.problems(), ElementsAre("a problem"));
  EXPECT_THAT(context.progress.report().events, ElementsAre("an event"));
}

TEST_F(Progress, FactsAreTheMainProcesss) {
  RunProgress progress(&hooks_);
  RunNotes notes(&progress, &hooks_, /*is_main=*/false);
  notes.Tell(Note::kEvent, "loaded 6 tensors");
  notes.Tell(Note::kProblem, "no traces");
  EXPECT_THAT(hooks_.notes, SizeIs(0));
  EXPECT_THAT(progress.report().events, SizeIs(0));
  EXPECT_THAT(notes.problems(), ElementsAre("no traces"));
}

TEST_F(Progress, EventsAreBounded) {
  RunProgress progress(nullptr);
  for (int i = 0; i < 100; ++i) progress.AddEvent(std::to_string(i));
  EXPECT_THAT(progress.report().events, SizeIs(RunProgress::kMaxEvents));
  EXPECT_EQ(progress.report().events.front(), "0");
}

TEST_F(Progress, NotesOfBeforeTheLogStandFirstInIt) {
  const TestFolder folder;
  RunContext& context = Context({{"log", true}, {"console", false}, {"dir", folder.path()}});
  context.notes.Tell(Note::kRemark, "told early");
  Workspace workspace = *ResolveWorkspace(context.config, absl::Now(), "");
  auto recorder = RunRecorder::Open(context.config, workspace, {"val"});
  ASSERT_TRUE(recorder.ok()) << recorder.status();
  context.notes.WriteTo(recorder->get());
  context.notes.Tell(Note::kFact, "told later");
  std::ifstream file(workspace.log_file());
  const std::string log((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_LT(log.find("[WARNING] told early"), log.find("[INFO] told later"));
  EXPECT_THAT(log, HasSubstr("told later"));
}

TEST_F(Progress, WhatAdvancesIsToldWithinAPhase) {
  RunProgress progress(&hooks_);
  progress.Advance("evaluation", 1);
  progress.Advance("writing a checkpoint", 4096);
  progress.MarkExchange();
  ASSERT_THAT(hooks_.phases, SizeIs(3));
  EXPECT_EQ(hooks_.phases[1].done, 4097);
  EXPECT_EQ(hooks_.phases[2].exchanges, 1);
  progress.Publish(RunnerPhase::kEvaluating, TrainState{.step = 7}, 0.5);
  ASSERT_THAT(hooks_.reports, SizeIs(1));
  EXPECT_EQ(hooks_.reports[0].step, 7);
  EXPECT_EQ(hooks_.reports[0].epoch, 0.5);
  EXPECT_EQ(hooks_.reports[0].phase_progress.done, 4097);
}

// A run that waits for a coordinator that is away is no hang; afterwards the limit counts anew.
TEST_F(Progress, AnExcuseHoldsTheWatchdogBack) {
  std::promise<void> excused;
  std::promise<std::string> hung;
  int asked = 0;
  Watchdog watchdog(
      absl::Milliseconds(20), [&](const std::string& what) { hung.set_value(what); },
      [&] {
        if (++asked == 3) excused.set_value();
        return asked <= 3;
      });
  ASSERT_EQ(excused.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
  auto what = hung.get_future();
  ASSERT_EQ(what.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_THAT(what.get(), HasSubstr("nothing finished for"));
  EXPECT_EQ(asked, 4);
}

TEST_F(Progress, AStoppedWatchdogSaysNothing) {
  bool called = false;
  Watchdog watchdog(absl::Milliseconds(5), [&](const std::string&) { called = true; }, [] { return true; });
  watchdog.Stop();
  watchdog.Stop();  // again: nothing
  EXPECT_FALSE(called);
}

}  // namespace
}  // namespace athanor
