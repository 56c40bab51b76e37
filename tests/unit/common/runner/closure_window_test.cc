#include "athanor/runner/step/closure_window.h"

#include "athanor/torch/status.h"
#include "tests/unit/common/runner/model_fixture.h"

namespace athanor {
namespace {

using testing::HasSubstr;

const nlohmann::json kLbfgs = {{"accum_steps", 2}, {"optim", {{"type", "lbfgs"}, {"lr", 1.0}, {"max_iter", 20}}}};

class ClosureWindowTest : public WeightRunTest {};

TEST_F(ClosureWindowTest, AnUpdateFindsTheBestWeightOfItsWindow) {
  WeightRun& run = Make(kLbfgs);
  ClosureWindow closure(&run.window, &run.trained);
  StepResult result;
  ASSERT_EQ(closure.Run(&result), absl::OkStatus());
  EXPECT_TRUE(result.updated);
  EXPECT_EQ(result.micro_batches, 2);
  EXPECT_EQ(result.samples, 8);
  EXPECT_NEAR(run.model->weight.item<double>(), 3.5, 1e-4) << "the mean of 0 .. 7";
  EXPECT_GE(run.steps.calls, 4) << "the window was evaluated more than once";
  EXPECT_NEAR(run.measures.ReadOut(Membership())->at("train").at("loss"), 11.5, 1e-5) << "of the weight before";
}

TEST_F(ClosureWindowTest, AStepThatFailsEndsTheUpdate) {
  WeightRun& run = Make(kLbfgs);
  ClosureWindow closure(&run.window, &run.trained);
  run.steps.fails_at = 3;  // in the second evaluation of the window
  StepResult result;
  const absl::Status failed = closure.Run(&result);
  EXPECT_THAT(std::string(failed.message()), HasSubstr("out of luck"));
  EXPECT_EQ(FailureKindOf(failed), FailureKind::kUserCode);
}

TEST_F(ClosureWindowTest, TwoRanksFindTheBestWeightOfBothWindows) {
  const RunnerConfig config = TestConfig(Changes(kLbfgs));
  std::vector<double> weights(2);
  RunRanks(2, /*shared_memory=*/true, [&](ProcessGroup* group) {
    RunContext context(config, group, torch::kCPU, nullptr);
    WeightRun run(&context, group, /*count=*/16);
    ClosureWindow closure(&run.window, &run.trained);
    closure.Reseat(group);
    StepResult result;
    ASSERT_EQ(closure.Run(&result), absl::OkStatus());
    weights[static_cast<size_t>(group->rank())] = run.model->weight.item<double>();
  });
  EXPECT_EQ(weights[0], weights[1]);
  EXPECT_NEAR(weights[0], 7.5, 1e-4) << "the mean of 0 .. 15";
}

}  // namespace
}  // namespace athanor
