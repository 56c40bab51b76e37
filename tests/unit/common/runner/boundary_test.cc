// What the ranks decide alike after an update, and what they measure.
#include "athanor/runner/boundary.h"

#include "tests/unit/common/runner/part_fixture.h"

namespace athanor {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

StepOutput Loss(double value) {
  return {.loss = torch::tensor(value)};
}

class BoundaryTest : public PartTest {
 protected:
  void Start(const nlohmann::json& changes = nlohmann::json::object()) {
    boundary_ = std::make_unique<Boundary>(&Context(changes));
    EXPECT_EQ(boundary_->Reseat(Membership()), absl::OkStatus());
  }
  absl::StatusOr<StepVerdict> Step(double loss, StepResult step = {}, bool stop = false) {
    measures_.Of("train").Add(Loss(loss), 4);
    return boundary_->Agree(step, {.step = ++steps_, .stop = stop}, &measures_,
                            [] { return std::vector<torch::Tensor>(); });
  }

  RunMeasures measures_{{"train"}};
  std::unique_ptr<Boundary> boundary_;
  int64_t steps_ = 0;
};

TEST_F(BoundaryTest, OneRankStopsWhenItIsAsked) {
  Start();
  EXPECT_FALSE(Step(1)->stop);
  EXPECT_TRUE(Step(1, {}, /*stop=*/true)->stop);
  EXPECT_EQ(boundary_->round(), 2);
}

TEST_F(BoundaryTest, LossesInARowThatAreNotFiniteEndTheRun) {
  Start({{"max_nonfinite_losses", 3}});
  const double nan = std::nan("");
  EXPECT_TRUE(Step(nan).ok());
  EXPECT_FALSE(boundary_->finite()) << "such weights are not saved";
  EXPECT_TRUE(Step(1).ok());
  EXPECT_TRUE(boundary_->finite());
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(Step(nan).ok());
  const absl::Status ended = Step(nan).status();
  EXPECT_EQ(FailureKindOf(ended), FailureKind::kNanLoss);
  EXPECT_THAT(std::string(ended.message()), HasSubstr("3 losses or gradients in a row were not finite, up to step 5"));
  EXPECT_EQ(context_->progress.report().nonfinite_losses, 4);
}

TEST_F(BoundaryTest, UpdatesLeftOutCountAndASearchForAScaleDoesNot) {
  Start({{"max_nonfinite_losses", 3}});
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(Step(1, {.updated = false, .scale_search = true}).ok());
  EXPECT_TRUE(Step(1, {.updated = false}).ok());
  EXPECT_TRUE(Step(1, {.updated = false}).ok());
  EXPECT_FALSE(Step(1, {.updated = false}).ok());
}

TEST(RunMeasuresTest, OneSplitIsCalledTrain) {
  RunMeasures measures({"digits"});
  EXPECT_THAT(measures.names(), ElementsAre("train"));
  measures.Of("digits").Add(Loss(2), 4);
  EXPECT_THAT(*measures.ReadOut(Membership()), ElementsAre(Pair("train", ElementsAre(Pair("loss", 2)))));
}

TEST(RunMeasuresTest, SeveralSplitsHaveReadOutsAndRowsOfTheirOwn) {
  RunMeasures measures({"a", "b"});
  measures.Of("a").Add(Loss(1), 4);
  measures.Of("a").Add(Loss(3), 4);
  EXPECT_THAT(*measures.ReadOut(Membership()), ElementsAre(Pair("a", ElementsAre(Pair("loss", 2)))));
  measures.Of("b").Add(Loss(5), 4);
  EXPECT_THAT(*measures.ReadOut(Membership()), ElementsAre(Pair("b", ElementsAre(Pair("loss", 5)))));
  measures.Of("a").Add(Loss(8), 8);
  const auto rows = *measures.Rows(Membership(), /*with_metrics=*/false);
  EXPECT_THAT(rows, ElementsAre(Pair("a", ElementsAre(Pair("loss", 5))), Pair("b", ElementsAre(Pair("loss", 5)))));
  EXPECT_TRUE(measures.Rows(Membership(), false)->empty()) << "nothing was trained on since";
}

TEST(RunMeasuresTest, LossesInARowAreTheRunsWhicheverSplitTheyAreOf) {
  RunMeasures measures({"a", "b"});
  measures.Of("a").Add(Loss(std::nan("")), 1);
  measures.Of("b").Add(Loss(std::nan("")), 1);
  measures.Collect();
  EXPECT_EQ(measures.nonfinite_in_a_row(), 2);
  measures.Of("b").Add(Loss(1), 1);
  measures.Collect();
  EXPECT_EQ(measures.nonfinite_in_a_row(), 0);
  EXPECT_EQ(measures.nonfinite_total(), 2);
}

TEST(RunMeasuresTest, SumsGoOnAfterARestore) {
  RunMeasures before({"a", "b"});
  before.Of("a").Add(Loss(1), 2);
  before.Of("b").Add(Loss(3), 2);
  nlohmann::json state;
  TensorMap tensors;
  ASSERT_EQ(before.Capture(&state, &tensors), absl::OkStatus());
  RunMeasures after({"a", "b"});
  std::string remark;
  ASSERT_EQ(after.Load(state, tensors, torch::kCPU, &remark), absl::OkStatus());
  EXPECT_EQ(after.current(), "b");
  after.Of("b").Add(Loss(5), 2);
  const auto rows = *after.Rows(Membership(), false);
  EXPECT_THAT(rows, ElementsAre(Pair("a", ElementsAre(Pair("loss", 1))), Pair("b", ElementsAre(Pair("loss", 4)))));
  EXPECT_TRUE(absl::IsDataLoss(after.Load({{"splits", nlohmann::json::object()}}, {}, torch::kCPU, &remark)));
  RunMeasures other({"c"});  // other splits than then: they begin anew
  EXPECT_EQ(other.Load(state, tensors, torch::kCPU, &remark), absl::OkStatus());
}

}  // namespace
}  // namespace athanor
