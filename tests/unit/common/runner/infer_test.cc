// Inference over a data set, and runners made from a checkpoint for it.
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

std::unique_ptr<TorchRunner> MakeRunner(bool with_predict) {
  auto net = std::make_shared<TestNet>();
  TorchRunnerOptions options;
  options.workspace_from_config = false;
  options.model = net;
  options.datasets = {{"train", TestData(100, 1)}, {"val", TestData(37, 2)}};
  options.forward = [net](const Batch& batch) {
    const torch::Tensor logits = net->forward(batch.input);
    return StepOutput{torch::nn::functional::cross_entropy(logits, batch.target),
                      {{"accuracy", (logits.argmax(1) == batch.target).to(torch::kFloat).mean()}}};
  };
  if (with_predict) options.predict = [net](const Batch& batch) { return net->forward(batch.input).argmax(1, true); };
  auto runner = TorchRunner::Create(TestConfig({{"ema", {{"enabled", true}}}}), std::move(options));
  EXPECT_TRUE(runner.ok()) << runner.status();
  return *std::move(runner);
}

TEST(Infer, PredictsWhatEvaluationMeasures) {
  auto runner = MakeRunner(/*with_predict=*/true);
  ASSERT_TRUE(runner->Train().ok());
  const auto measured = runner->Evaluate("val");
  ASSERT_TRUE(measured.ok()) << measured.status();
  const absl::StatusOr<torch::Tensor> predicted = runner->Infer("val");
  ASSERT_TRUE(predicted.ok()) << predicted.status();
  ASSERT_EQ(predicted->sizes(), torch::IntArrayRef({37}));  // the last dimension of 1 is gone
  std::vector<torch::Tensor> targets;
  int64_t batches = 0;
  ASSERT_TRUE(runner
                  ->Infer("val",
                          [&](const Batch& batch, torch::Tensor prediction) {
                            EXPECT_EQ(prediction.size(0), batch.size);
                            targets.push_back(batch.target.slice(0, 0, batch.size));
                            ++batches;
                            return absl::OkStatus();
                          })
                  .ok());
  EXPECT_EQ(batches, 5);
  const double accuracy = (*predicted == torch::cat(targets)).to(torch::kDouble).mean().item<double>();
  EXPECT_NEAR(accuracy, measured->at("accuracy"), 1e-6);
  EXPECT_TRUE(runner->model().is_training());
}

TEST(Infer, StopsWhereItIsTold) {
  auto runner = MakeRunner(/*with_predict=*/true);
  EXPECT_EQ(runner->Infer("val", /*max_batches=*/2)->size(0), 16);
  EXPECT_EQ(runner->Infer("val", /*max_batches=*/0)->size(0), 0);
  int64_t seen = 0;
  const absl::Status status = runner->Infer("val", [&](const Batch&, torch::Tensor) {
    return ++seen == 2 ? absl::CancelledError("enough") : absl::OkStatus();
  });
  EXPECT_TRUE(absl::IsCancelled(status));
  EXPECT_EQ(seen, 2);
}

TEST(Infer, SaysWhatIsMissing) {
  EXPECT_TRUE(absl::IsFailedPrecondition(MakeRunner(/*with_predict=*/false)->Infer("val").status()));
  const absl::Status unknown = MakeRunner(/*with_predict=*/true)->Infer("test").status();
  EXPECT_TRUE(absl::IsNotFound(unknown));
  EXPECT_THAT(std::string(unknown.message()), testing::HasSubstr("train, val"));
}

}  // namespace
}  // namespace athanor
