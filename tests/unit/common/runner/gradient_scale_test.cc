// precision: fp16. The search for the gradient scale is no fault of the model.
#include "athanor/runner/step/precision.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

struct ScaledRun {
  absl::StatusOr<RunResult> result = absl::UnknownError("not run");
  int64_t skipped = 0;
  double loss_at_start = 0, loss = 0;
};

// A regression whose targets are about `size`; `half`: the loss is a float16 number as well.
ScaledRun TrainRegression(double size, int64_t limit, bool break_gradients = false) {
  torch::manual_seed(1);
  torch::nn::Sequential net(torch::nn::Linear(8, 16), torch::nn::ReLU(), torch::nn::Linear(16, 1));
  const torch::Tensor x = torch::randn({512, 8}), y = (x.sum(1, true) + 2) * size;
  ScaledRun run;
  TorchRunnerOptions options;
  options.workspace_from_config = false;
  options.model = net.ptr();
  options.datasets = {{"train", *TensorDataset::Make(x, y)}};
  options.forward = [&, net](const Batch& batch) mutable {
    torch::Tensor loss = torch::mse_loss(net->forward(batch.input).to(torch::kFloat), batch.target);
    if (run.loss_at_start == 0) run.loss_at_start = loss.item<double>();
    run.loss = loss.item<double>();
    if (break_gradients) {  // finite forward, NaN backward
      const torch::Tensor zero = net->parameters()[0].sum() * 0;
      loss = loss + (zero * zero).sqrt() * 0;
    }
    return StepOutput{loss, {}};
  };
  auto runner = TorchRunner::Create(TestConfig({{"steps", 60},
                                                {"sched", nullptr},
                                                {"precision", "fp16"},
                                                {"max_nonfinite_losses", limit},
                                                {"optim", {{"type", "adam"}, {"lr", 0.01}}},
                                                {"dataloader", {{"batch_size", 32}}}}),
                                    std::move(options));
  EXPECT_TRUE(runner.ok()) << runner.status();
  if (!runner.ok()) return run;
  run.result = (*runner)->Train();
  run.skipped = (*runner)->state().skipped_updates;
  return run;
}

TEST(GradientScale, IsFoundForAnySizeOfLoss) {
  // torch.amp.GradScaler("cpu") leaves 13, 14, 21 and 28 updates out here.
  const std::pair<double, int64_t> sizes[] = {{300.0, 13}, {1000.0, 14}, {1e5, 21}, {1e7, 28}};
  for (const auto& [size, skipped] : sizes) {
    const ScaledRun run = TrainRegression(size, /*limit=*/1);
    ASSERT_TRUE(run.result.ok()) << size << ": " << run.result.status();
    EXPECT_NEAR(static_cast<double>(run.skipped), static_cast<double>(skipped), 2) << size;
    EXPECT_LT(run.loss, 2 * run.loss_at_start) << size;
  }
}

TEST(GradientScale, GradientsThatNoScaleHelpsEndTheRun) {
  const ScaledRun run = TrainRegression(1.0, /*limit=*/5, /*break_gradients=*/true);
  EXPECT_EQ(FailureKindOf(run.result.status()), FailureKind::kNanLoss) << run.result.status();
}

TEST(GradientScale, FallsBelowOneAndKeepsToFloat32) {
  GradientScale scale(true);
  for (int i = 0; i < 28; ++i) scale.Update(true);
  EXPECT_EQ(scale.scale(), 0x1p-12);
  EXPECT_TRUE(scale.searching());
  GradientScale again(true);
  ASSERT_TRUE(again.FromJson(scale.ToJson()).ok());
  EXPECT_EQ(again.scale(), 0x1p-12);
  for (int i = 0; i < 100; ++i) scale.Update(true);
  EXPECT_GT(scale.scale(), 0);
  EXPECT_FALSE(scale.searching());
  EXPECT_FALSE(GradientScale(false).searching());
  for (int64_t i = 0; i < 2000 * 300; ++i) again.Update(false);
  EXPECT_EQ(again.scale(), 0x1p127);
  for (const double wrong : {0.0, -1.0, 1e300}) {
    EXPECT_TRUE(absl::IsDataLoss(again.FromJson({{"scale", wrong}, {"good_updates", 0}}))) << wrong;
  }
}

}  // namespace
}  // namespace athanor
