// What goes wrong in a run and is told: damaged samples, memory that runs out; and the windows of the profiler.
#include "athanor/runner/watch/memory_report.h"
#include "athanor/runner/watch/profiler.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

using ::testing::HasSubstr;

// Samples 3 and 50 are damaged.
class HurtData : public Dataset {
 public:
  int64_t size() const override { return inner_->size(); }
  absl::StatusOr<Batch> Get(const std::vector<int64_t>& indices) const override {
    for (const int64_t index : indices) {
      if (index == 3 || index == 50) return absl::DataLossError(absl::StrCat("sample ", index, " is damaged"));
    }
    return inner_->Get(indices);
  }

 private:
  std::shared_ptr<Dataset> inner_ = TestData(100, 1);
};

absl::StatusOr<RunResult> TrainHurt(const nlohmann::json& loader) {
  auto net = std::make_shared<TestNet>();
  TorchRunnerOptions options;
  options.workspace_from_config = false;
  options.model = net;
  options.datasets = {{"train", std::make_shared<HurtData>()}};
  options.forward = [net](const Batch& batch) {
    return StepOutput{torch::nn::functional::cross_entropy(net->forward(batch.input), batch.target), {}};
  };
  auto runner = TorchRunner::Create(TestConfig({{"dataloader", loader}}), std::move(options));
  return runner.ok() ? (*runner)->Train() : runner.status();
}

TEST(DamagedSamples, FailTheRunUnlessItMaySkipThem) {
  const absl::Status failed = TrainHurt(nlohmann::json::object()).status();
  EXPECT_EQ(FailureKindOf(failed), FailureKind::kData);
  EXPECT_THAT(std::string(failed.message()), HasSubstr("is damaged"));
  const auto skipped = TrainHurt({{"on_damage", "skip"}});
  ASSERT_TRUE(skipped.ok()) << skipped.status();
  EXPECT_EQ(skipped->metrics.at("damaged_samples"), 2);
  EXPECT_EQ(FailureKindOf(TrainHurt({{"on_damage", "skip"}, {"max_damaged", 1}}).status()), FailureKind::kData);
}

TEST(OutOfMemory, ReportsWhereTheMemoryIs) {
  auto net = std::make_shared<TestNet>();
  TorchRunnerOptions options;
  options.workspace_from_config = false;
  options.model = net;
  options.datasets = {{"train", TestData(100, 1)}};
  int calls = 0;
  options.forward = [&, net](const Batch& batch) {
    if (++calls == 4) return StepOutput{torch::empty({int64_t{1} << 45}), {}};
    return StepOutput{torch::nn::functional::cross_entropy(net->forward(batch.input), batch.target), {}};
  };
  auto runner = TorchRunner::Create(TestConfig(), std::move(options));
  ASSERT_TRUE(runner.ok());
  const absl::Status status = (*runner)->Train().status();
  EXPECT_EQ(FailureKindOf(status), FailureKind::kOutOfMemory) << status;
  for (const char* part : {"memory of rank 0: process", "parameters and buffers", "optimizer", "gradients"}) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
}

TEST(OutOfMemory, SharedStoragesCountOnce) {
  const torch::Tensor whole = torch::ones({256});
  EXPECT_EQ(BytesOf({whole, whole.narrow(0, 0, 4), torch::Tensor()}), 1024);
}

TEST(Profiler, WindowsFollowTheSchedule) {
  ProfilingConfig config;
  config.enabled = true;
  config.wait = 2;
  config.warmup = 1;
  config.active = 2;
  config.repeat = 2;
  std::string phases;
  for (int64_t i = 0; i < 13; ++i) phases += ".wA"[static_cast<int>(PhaseOf(config, i))];
  EXPECT_EQ(phases, "..wAA..wAA...");
  config.wait = config.warmup = 0;
  config.repeat.reset();
  EXPECT_EQ(PhaseOf(config, 1000), ProfilerPhase::kActive);
  config.enabled = false;
  EXPECT_EQ(PhaseOf(config, 0), ProfilerPhase::kOff);
}

}  // namespace
}  // namespace athanor
