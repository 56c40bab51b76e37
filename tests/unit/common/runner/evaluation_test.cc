// What follows from the numbers of an evaluation: the best one, patience, what a resume need not repeat.
#include "athanor/runner/evaluation.h"

#include "tests/unit/common/runner/part_fixture.h"

namespace athanor {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Results = std::map<std::string, double>;

class EvaluationTest : public PartTest {
 protected:
  Evaluation Make(const nlohmann::json& changes = nlohmann::json::object()) {
    return Evaluation(&Context(changes), &trainee_, {"val"});
  }
  Evaluation::Outcome RunAt(Evaluation& evaluation, int64_t step, double loss) {
    trainee_.evaluations.insert_or_assign("val", Results{{"loss", loss}});
    state_.step = step;
    const auto found = evaluation.Run(&state_, /*tolerant=*/false);
    EXPECT_EQ(found.status(), absl::OkStatus());
    return found.value_or(Evaluation::Outcome{});
  }

  TrainState state_;
};

TEST_F(EvaluationTest, TheBestIsKnownUntilTheNextOne) {
  Evaluation evaluation = Make();
  EXPECT_TRUE(RunAt(evaluation, 5, 1).is_best);
  EXPECT_TRUE(evaluation.BestAt(5));
  EXPECT_FALSE(RunAt(evaluation, 10, 2).is_best);
  EXPECT_FALSE(evaluation.Knows(5));
  EXPECT_EQ(evaluation.results().at("val.loss"), 2);
  EXPECT_EQ(context_->progress.report().metrics.at("val.loss"), 2);
}

TEST_F(EvaluationTest, PatienceEndsTheRunAndSaysSo) {
  Evaluation evaluation = Make({{"patience", 1}, {"steps", nullptr}, {"epochs", 9}});
  for (int64_t step : {1, 2}) RunAt(evaluation, step, static_cast<double>(step));
  EXPECT_FALSE(state_.stopped_early);
  RunAt(evaluation, 3, 3);
  EXPECT_TRUE(state_.stopped_early);
  EXPECT_THAT(context_->progress.report().events,
              ElementsAre("stopped early after step 3: 2 evaluations without a better val.loss; best 1 at step 1"));
}

TEST_F(EvaluationTest, ALastOneThatFailsIsANote) {
  Evaluation evaluation = Make();
  trainee_.evaluations.insert_or_assign("val", absl::InternalError("no such file"));
  EXPECT_FALSE(evaluation.Run(&state_, /*tolerant=*/false).ok());
  const auto found = evaluation.Run(&state_, /*tolerant=*/true);
  ASSERT_TRUE(found.ok());
  EXPECT_FALSE(found->repeatable);
  EXPECT_THAT(context_->notes.problems(), ElementsAre("the last evaluation of 'val' failed: no such file"));
}

TEST_F(EvaluationTest, NamesThatNothingMeasuresAreRefusedOnce) {
  Evaluation evaluation = Make({{"score", {{"name", "accuracy"}}}});
  trainee_.evaluations.insert_or_assign("val", Results{{"loss", 1}});
  EXPECT_THAT(std::string(evaluation.Run(&state_, false).status().message()),
              HasSubstr("score.name: nothing is measured as 'val.accuracy'; measured: val.loss"));
  EXPECT_TRUE(evaluation.Run(&state_, false).ok());
}

TEST_F(EvaluationTest, WhatAnEarlierProcessHasMeasuredIsTakenInItsPlace) {
  Evaluation evaluation = Make();
  evaluation.Offer(7, {{"val.loss", 0.25}}, ToJson(context_->config));
  ASSERT_TRUE(evaluation.offered());
  trainee_.evaluations.insert_or_assign("val", absl::InternalError("must not be asked"));
  state_.step = 7;
  ASSERT_TRUE(evaluation.Run(&state_, false).ok());
  EXPECT_EQ(evaluation.results().at("val.loss"), 0.25);
  EXPECT_FALSE(evaluation.offered());

  evaluation.Offer(8, {{"test.loss", 1}}, ToJson(context_->config));
  EXPECT_FALSE(evaluation.offered()) << "of another split";
  nlohmann::json other = ToJson(context_->config);
  other["evaluate"]["interval"] = 17;
  evaluation.Offer(8, {{"val.loss", 1}}, other);
  EXPECT_FALSE(evaluation.offered()) << "made with other options";
}

TEST_F(EvaluationTest, IsDueByPassOrByInterval) {
  Evaluation by_pass = Make();
  EXPECT_TRUE(by_pass.Due({.epoch_ended = true}, 3));
  EXPECT_FALSE(by_pass.Due({}, 3));
  Evaluation by_step = Make({{"evaluate", {{"interval", 4}}}});
  EXPECT_TRUE(by_step.Due({}, 8));
  EXPECT_FALSE(by_step.Due({.updated = false}, 8)) << "the step was seen before";
  RunAt(by_step, 8, 1);
  EXPECT_FALSE(by_step.Due({}, 8));
}

TEST_F(EvaluationTest, SplitsThatDoNotExistAreRefused) {
  EXPECT_THAT(std::string(Make({{"score", {{"split", "dev"}}}}).Check().message()), HasSubstr("score.split: 'dev'"));
  trainee_.monitor = "";
  EXPECT_FALSE(Evaluation(&Context(), &trainee_, {}).Check().ok());
}

}  // namespace
}  // namespace athanor
