// Passes without gradients: the evaluation of a split, and inference over one.
#include "athanor/runner/step/split_evaluator.h"

#include "athanor/runner/step/inference.h"
#include "athanor/torch/status.h"
#include "tests/unit/common/runner/model_fixture.h"

namespace athanor {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

absl::StatusOr<std::unique_ptr<MetricSet>> NoMetrics() {
  return nullptr;
}

class SplitEvaluatorTest : public WeightRunTest {
 protected:
  SplitEvaluator Evaluator(WeightRun& run) { return {run.context, &run.trained, &run.data, &run.steps, NoMetrics}; }
};

TEST_F(SplitEvaluatorTest, EachSampleCountsOnce) {
  WeightRun& run = Make();
  SplitEvaluator evaluator = Evaluator(run);
  EXPECT_DOUBLE_EQ(evaluator.Run("val", -1)->at("loss"), 3.0) << "(1 + 0 + 1 + 4 + 9) / 5";
  EXPECT_DOUBLE_EQ(evaluator.Run("val", 1)->at("loss"), 1.5) << "of the first batch";
  EXPECT_FALSE(run.steps.training_in_evaluation);
  EXPECT_TRUE(run.model->is_training());
  const absl::Status unknown = evaluator.Run("dev", -1).status();
  EXPECT_TRUE(absl::IsNotFound(unknown));
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("the splits are: train, val"));
}

TEST_F(SplitEvaluatorTest, TheAverageOfTheWeightsIsWhatIsEvaluated) {
  WeightRun& run = Make();
  run.trained.average = std::make_unique<ModelAverage>(*run.model, 0.5);
  torch::NoGradGuard no_grad;
  run.model->weight.fill_(100);
  EXPECT_DOUBLE_EQ(Evaluator(run).Run("val", -1)->at("loss"), 3.0);
  EXPECT_EQ(run.model->weight.item<float>(), 100.f) << "training goes on with its own";
}

TEST_F(SplitEvaluatorTest, AStepThatFailsLeavesTheModelInTraining) {
  WeightRun& run = Make();
  run.steps.fails_at = 1;
  const absl::Status failed = Evaluator(run).Run("val", -1).status();
  EXPECT_THAT(std::string(failed.message()), HasSubstr("out of luck"));
  EXPECT_EQ(FailureKindOf(failed), FailureKind::kUserCode);
  EXPECT_TRUE(run.model->is_training());
}

TEST_F(SplitEvaluatorTest, RanksWithUnequalSharesHaveTheMeanOfAllSamples) {
  const RunnerConfig config = TestConfig(Changes());
  std::vector<double> losses(2);
  RunRanks(2, /*shared_memory=*/true, [&](ProcessGroup* group) {
    RunContext context(config, group, torch::kCPU, nullptr);
    WeightRun run(&context, group, /*count=*/16);
    losses[static_cast<size_t>(group->rank())] = Evaluator(run).Run("val", -1)->at("loss");
  });
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_NEAR(losses[0], 3.0, 1e-6);
}

class InferenceTest : public WeightRunTest {
 protected:
  absl::Status Run(WeightRun& run, const Inference::Sink& sink, int64_t max_batches = -1) {
    return Inference(run.context, &run.trained, &run.steps).Run(*run.data.EvaluationLoader("val"), sink, max_batches);
  }
};

TEST_F(InferenceTest, EverySampleIsPredictedInOrder) {
  WeightRun& run = Make();
  torch::NoGradGuard no_grad;
  run.model->weight.fill_(2);
  std::vector<float> found;
  const Inference::Sink keep = [&](const Batch& batch, const torch::Tensor& prediction) {
    EXPECT_EQ(prediction.size(0), batch.size);
    for (int64_t i = 0; i < batch.size; ++i) found.push_back(prediction[i].item<float>());
    return absl::OkStatus();
  };
  ASSERT_EQ(Run(run, keep), absl::OkStatus());
  EXPECT_THAT(found, ElementsAre(0, 2, 4, 6, 8));
  EXPECT_TRUE(run.model->is_training());
  run.model->eval();
  found.clear();
  ASSERT_EQ(Run(run, keep, /*max_batches=*/1), absl::OkStatus());
  EXPECT_THAT(found, ElementsAre(0, 2, 4, 6));
  EXPECT_FALSE(run.model->is_training()) << "as before";
}

TEST_F(InferenceTest, EndsWithTheSinksErrorAndWithPredictionsOfNoBatch) {
  WeightRun& run = Make();
  int batches = 0;
  const absl::Status full = Run(run, [&](const Batch&, const torch::Tensor&) {
    ++batches;
    return absl::ResourceExhaustedError("the disk is full");
  });
  EXPECT_EQ(full, absl::ResourceExhaustedError("the disk is full"));
  EXPECT_EQ(batches, 1);
  run.steps.scalar_predictions = true;
  const absl::Status scalar = Run(run, [](const Batch&, const torch::Tensor&) { return absl::OkStatus(); });
  EXPECT_THAT(std::string(scalar.message()), HasSubstr("predict returned a scalar"));
}

}  // namespace
}  // namespace athanor
