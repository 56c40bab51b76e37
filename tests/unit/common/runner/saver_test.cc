// When a run saves and under which names, and where it starts from.
#include "athanor/runner/state/saver.h"

#include <fstream>

#include "athanor/checkpoint/format/layout.h"
#include "athanor/runner/state/resume.h"
#include "tests/unit/common/runner/part_fixture.h"

namespace athanor {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class SaverTest : public PartTest {
 protected:
  Saver Make(const nlohmann::json& changes = nlohmann::json::object()) {
    RunContext& context = Context(changes);
    RunCheckpointsOptions options;
    options.committer = &committer_;
    options.root = folder_.path();
    options.note = [&context](const std::string& text) { context.notes.Tell(Note::kProblem, text); };
    return Saver(&context, *RunCheckpoints::Create(context.config, std::move(options)),
                 [this](bool model_only, const PendingWork& pending) {
                   captured_ = pending;
                   return trainee_.CaptureState(model_only);
                 });
  }
  Saver::Moment At(int64_t step, bool finite = true, bool is_best = false) {
    state_.step = step;
    return {.state = state_, .finite = finite, .is_best = is_best};
  }
  void SetUp() override { trainee_.state.replicated["model.w"] = torch::ones({3}); }

  TestFolder folder_;
  SharedLedger ledger_{1};
  LedgerCommitter committer_{&ledger_};
  TrainState state_;
  PendingWork captured_;
};

TEST_F(SaverTest, SavesOnItsCadenceAndWhenItMust) {
  Saver saver = Make();
  EXPECT_TRUE(saver.Due(TrainState{.step = 10}, false));
  EXPECT_FALSE(saver.Due(TrainState{.step = 11}, false));
  EXPECT_FALSE(saver.Save({}, At(11), /*must_wait=*/true)->save()) << "off the cadence, and not the best";
  EXPECT_TRUE(saver.Save({.force = true}, At(12), true)->save());
  EXPECT_TRUE(saver.Save({}, At(13, true, /*is_best=*/true), true)->save());
  ASSERT_EQ(saver.Drain(), absl::OkStatus());
  EXPECT_THAT(ledger_.committed(), ElementsAre(12, 13));
}

TEST_F(SaverTest, WhatIsNotFiniteIsNoPlaceToComeBackTo) {
  Saver saver = Make();
  const auto plan = saver.Save({.force = true}, At(10, /*finite=*/false), true);
  ASSERT_TRUE(plan.ok());
  EXPECT_FALSE(plan->save());
  EXPECT_EQ(trainee_.captures, 0);
  EXPECT_THAT(context_->notes.problems(), ElementsAre("step 10 was not saved: its loss is not finite"));
  EXPECT_EQ(saver.SaveBeforeEvaluation(At(10, false), /*last=*/true), absl::OkStatus());
  EXPECT_EQ(trainee_.captures, 0);
}

TEST_F(SaverTest, TheStateBeforeAnEvaluationSaysWhatIsPending) {
  Saver saver = Make();
  Saver::Moment moment = At(10);
  moment.pending.pass_end = true;
  ASSERT_EQ(saver.SaveBeforeEvaluation(moment, /*last=*/true), absl::OkStatus());
  EXPECT_TRUE(captured_.evaluation && captured_.pass_end);
  EXPECT_THAT(ledger_.committed(), ElementsAre(10)) << "on disk when the evaluation begins";
  saver.ReportEvaluation(10, {{"val.loss", 0.5}}, /*is_best=*/true, /*repeatable=*/true);
  ASSERT_EQ(saver.Drain(), absl::OkStatus());
  EXPECT_TRUE(ledger_.manifests()[0].is_best);
  EXPECT_EQ(ledger_.manifests()[0].metrics.at("val.loss"), 0.5);
}

TEST_F(SaverTest, WhatCouldNotBeWrittenIsTold) {
  std::ofstream(folder_.path() + "/" + CheckpointDirName(10)) << "a file where the folder should be";
  Saver saver = Make();
  ASSERT_TRUE(saver.Save({.force = true}, At(10), true).ok());
  EXPECT_FALSE(saver.Drain().ok());
  saver.RefreshStats();
  EXPECT_EQ(context_->progress.report().checkpoint_failures, 1);
  ASSERT_EQ(context_->notes.problems().size(), 1u);
  EXPECT_THAT(context_->notes.problems()[0], HasSubstr("not saved: "));
}

class ResumeTest : public SaverTest {
 protected:
  absl::Status Restore(Resume& resume, std::vector<ResumeCandidate> candidates) {
    RunCheckpointsOptions options;
    options.candidates = std::move(candidates);
    checkpoints_ = *RunCheckpoints::Create(context_->config, std::move(options));
    evaluation_ = std::make_unique<Evaluation>(context_.get(), &trainee_, std::vector<std::string>());
    measures_ = std::make_unique<RunMeasures>(std::vector<std::string>{"train"});
    run_ = std::make_unique<RunState>(context_.get(), &trainee_, measures_.get());
    run_->Keep(&evaluation_->score(), nullptr);
    return resume.Restore(checkpoints_.get(), run_.get(), evaluation_.get());
  }

  std::unique_ptr<RunCheckpoints> checkpoints_;
  std::unique_ptr<Evaluation> evaluation_;
  std::unique_ptr<RunMeasures> measures_;
  std::unique_ptr<RunState> run_;
};

TEST_F(ResumeTest, WithoutCandidatesTheConfiguredWeightsAreTakenOnce) {
  Resume resume(&Context({{"pretrained", "/w.pt"}}), &trainee_, {});
  EXPECT_EQ(Restore(resume, {}), absl::OkStatus());
  EXPECT_EQ(Restore(resume, {}), absl::OkStatus());
  EXPECT_THAT(trainee_.pretrained, ElementsAre("/w.pt"));
  EXPECT_TRUE(resume.done());
}

TEST_F(ResumeTest, AnErrorStaysUntilAWholeStateWasTaken) {
  Resume resume(&Context({{"pretrained", "/w.pt"}}), &trainee_, {});
  trainee_.load_status = absl::DataLossError("cut off");
  EXPECT_THAT(std::string(Restore(resume, {}).message()), HasSubstr("pretrained: cut off"));
  EXPECT_FALSE(resume.error().ok());
  EXPECT_FALSE(Restore(resume, {}).ok()) << "asked again, it is tried again";
  trainee_.load_status = absl::OkStatus();
  EXPECT_EQ(Restore(resume, {}), absl::OkStatus());
  EXPECT_EQ(resume.error(), absl::OkStatus());
  EXPECT_THAT(trainee_.pretrained, testing::SizeIs(3));
}

TEST_F(ResumeTest, AutoResumeStartsFromNothingWithANote) {
  Resume resume(&Context({{"auto_resume", true}}), &trainee_, {});
  EXPECT_EQ(resume.FindCandidates(folder_.path(), std::nullopt), absl::OkStatus());
  EXPECT_TRUE(resume.candidates().empty());
  ASSERT_EQ(context_->notes.problems().size(), 1u);
  EXPECT_THAT(context_->notes.problems()[0], HasSubstr("auto_resume: no checkpoint in"));
}

TEST_F(ResumeTest, PartsThatDoNotExistAreRefused) {
  Resume resume(&Context(), &trainee_, {});
  RunMeasures measures({"train"});
  RunState state(context_.get(), &trainee_, &measures);
  EXPECT_THAT(std::string(resume.Load("/x", {"moddel"}, &state).message()),
              HasSubstr("no part 'moddel'; allowed: model"));
}

}  // namespace
}  // namespace athanor
