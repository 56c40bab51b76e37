// Options of a run that no other test turns: each through the configuration, with what it must change and must not.
#include <fstream>
#include <numeric>
#include <thread>

#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/runner/runner.h"
#include "athanor/runner/state/pretrained.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

using ::testing::HasSubstr;
using json = nlohmann::json;

class RunOptions : public testing::Test {
 protected:
  static TorchRunnerOptions Options(std::shared_ptr<TestNet> net = std::make_shared<TestNet>()) {
    TorchRunnerOptions options;
    options.model = net;
    options.datasets = {{"train", TestData(100, 1)}, {"val", TestData(37, 2)}};
    options.forward = [net](const Batch& batch) {
      return StepOutput{torch::nn::functional::cross_entropy(net->forward(batch.input), batch.target), {}};
    };
    return options;
  }
  json At(json changes) {
    changes["dir"] = folder_.path();
    return changes;
  }
  std::string Text(const std::string& name) {
    std::ifstream file(folder_.path() + "/" + name);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  static RankRun Train(const json& changes, RunSpec spec = {}) {
    spec.config = TestConfig(changes);
    RankRun run = TrainAll(spec)[0];
    EXPECT_TRUE(run.result.ok()) << run.result.status();
    return run;
  }
  TestFolder folder_;
};

TEST_F(RunOptions, HalfPrecisionTrainsTheSameProblem) {
  RunSpec spec;
  spec.dropout = 0;
  const double full = Train({{"steps", 60}}, spec).result->metrics.at("val.loss");
  // Eight bits of mantissa, or eleven: the losses agree to about two digits.
  for (const char* precision : {"bf16", "fp16"}) {
    const RankRun half = Train({{"steps", 60}, {"precision", precision}}, spec);
    EXPECT_NEAR(half.result->metrics.at("val.loss"), full, 0.03 * full) << precision;
    for (const auto& [name, tensor] : half.model) EXPECT_FALSE(tensor.scalar_type() == torch::kHalf) << name;
  }
}

TEST_F(RunOptions, WhatOnlyPacesOrExchangesChangesNoWeight) {
  const RankRun plain = Train(json::object());
  for (const char* text : {R"({"gc": {"interval": 1}})", R"({"deterministic": true})",
                           R"({"dataloader": {"num_workers": 2, "prefetch_factor": 3}})"}) {
    ExpectSameModel(plain.model, Train(json::parse(text)).model);
  }
  RunSpec two;
  two.world_size = 2;
  two.dropout = 0;  // threads share a generator
  two.shared_memory = false;
  ExpectSameModel(Train(json::object(), two).model, Train({{"comm", {{"bucket_mb", 0.0001}}}}, two).model);
}

TEST_F(RunOptions, LoadOnlyReadsAndNeverWrites) {
  ASSERT_TRUE((*TorchRunner::Create(TestConfig(At({{"steps", 10}})), Options()))->Train().ok());
  const auto before = ListCheckpoints(folder_.path() + "/checkpoints");
  auto runner = TorchRunner::Create(
      TestConfig(At({{"steps", 30}, {"auto_resume", true}, {"checkpoint", {{"load_only", true}}}})), Options());
  ASSERT_TRUE(runner.ok()) << runner.status();
  ASSERT_TRUE((*runner)->Train().ok());
  EXPECT_EQ((*runner)->progress().resumed_from_step, 10);
  const auto after = ListCheckpoints(folder_.path() + "/checkpoints");
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_EQ(before->size(), after->size());
}

TEST_F(RunOptions, PinnedStagingIsAWayOfSavingAsynchronously) {
  const json changes = At({{"steps", 20}, {"checkpoint", {{"async_mode", "async_with_pinned_mem"}, {"interval", 10}}}});
  ASSERT_TRUE((*TorchRunner::Create(TestConfig(changes), Options()))->Train().ok());
  const auto found = ListCheckpoints(folder_.path() + "/checkpoints");
  ASSERT_TRUE(found.ok());
  ASSERT_EQ(found->front().step, 20);
  EXPECT_TRUE(ReadCheckpoint(found->front(), 0, 1).ok());
}

TEST_F(RunOptions, TheLogAndTheTracesGoWhereTheyAreSent) {
  const std::string log = folder_.path() + "/deep/run.log";
  auto runner = TorchRunner::Create(TestConfig(At({{"log_file", log},
                                                   {"profiling",
                                                    {{"enabled", true},
                                                     {"wait", 0},
                                                     {"warmup", 1},
                                                     {"active", 2},
                                                     {"repeat", 1},
                                                     {"record_shapes", true},
                                                     {"with_flops", true},
                                                     {"with_stack", true},
                                                     {"trace_dir", "traces"}}}})),
                                    Options());
  ASSERT_TRUE(runner.ok()) << runner.status();
  const auto result = (*runner)->Train();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(Text("deep/run.log"), HasSubstr("finished at step 30"));
  std::string trace;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_.path() + "/traces"))
    if (entry.is_regular_file()) trace = entry.path().string();
  ASSERT_FALSE(trace.empty());
  std::ifstream file(trace);
  const std::string events((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_TRUE(events.find("aten::addmm") != std::string::npos) << "of " << events.size() << " bytes";
  EXPECT_TRUE(events.find("Input Dims") != std::string::npos);
}

TEST_F(RunOptions, AStepThatHangsIsNoticedByTheWatchdog) {
  auto net = std::make_shared<TestNet>();
  TorchRunnerOptions options = Options(net);
  std::atomic<bool> noticed = false;
  options.workspace_from_config = false;
  options.hang_timeout = absl::Milliseconds(50);
  options.on_hang = [&](const std::string&) { noticed = true; };
  options.forward = [&, train = options.forward, step = 0](const Batch& batch) mutable {
    // Stands still until it has been seen to.
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    if (++step == 5) {
      while (!noticed && std::chrono::steady_clock::now() < until) std::this_thread::yield();
    }
    return train(batch);
  };
  auto runner = TorchRunner::Create(TestConfig({{"steps", 10}}), std::move(options));
  ASSERT_TRUE(runner.ok()) << runner.status();
  ASSERT_TRUE((*runner)->Train().ok());
  EXPECT_TRUE(noticed);
}

TEST_F(RunOptions, BatchesHoldWhateverTheModelTakes) {
  // Half of the samples are masked out of the loss.
  const torch::Tensor mask = torch::arange(100).remainder(2).to(torch::kFloat);
  auto plain = TestData(100, 1)->Get([] {
    std::vector<int64_t> all(100);
    std::iota(all.begin(), all.end(), 0);
    return all;
  }());
  ASSERT_TRUE(plain.ok());
  const auto data = TensorDataset::Make(plain->input, plain->target, {{"mask", mask}});
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_FALSE(TensorDataset::Make(plain->input, plain->target, {{"mask", torch::ones(3)}}).ok());
  for (const int workers : {0, 2}) {
    auto net = std::make_shared<TestNet>(0.0, false);
    TorchRunnerOptions options = Options(net);
    options.workspace_from_config = false;
    options.datasets = {{"train", *data}};
    double counted = 0;
    options.forward = [net, &counted](const Batch& batch) {
      const torch::Tensor mask = batch.more.at("mask");
      if (net->is_training()) counted += mask.sum().item<double>();
      const torch::Tensor losses = torch::nn::functional::cross_entropy(
          net->forward(batch.input), batch.target,
          torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kNone));
      return StepOutput{.loss = (losses * mask).sum() / mask.sum().clamp_min(1), .weight = mask.sum()};
    };
    auto runner =
        TorchRunner::Create(TestConfig({{"steps", nullptr}, {"epochs", 1}, {"dataloader", {{"num_workers", workers}}}}),
                            std::move(options));
    ASSERT_TRUE(runner.ok()) << runner.status();
    ASSERT_TRUE((*runner)->Train().ok());
    EXPECT_EQ(counted, 50);
  }
}

TEST_F(RunOptions, RetentionCountsWhatAnEarlierProcessLeft) {
  const json first = At({{"steps", 30}, {"checkpoint", {{"keep_latest_k", 2}, {"async_enabled", false}}}});
  ASSERT_TRUE((*TorchRunner::Create(TestConfig(first), Options()))->Train().ok());
  // A writer that was killed left a folder without a manifest.
  const std::string root = folder_.path() + "/checkpoints";
  std::filesystem::create_directories(root + "/step-000000000035");
  std::ofstream(root + "/step-000000000035/shard-00000-of-00001-dead.safetensors") << "half";
  json more = first;
  more["steps"] = 50;
  more["auto_resume"] = true;
  ASSERT_TRUE((*TorchRunner::Create(TestConfig(more), Options()))->Train().ok());
  std::vector<std::string> left;
  for (const auto& entry : std::filesystem::directory_iterator(root))
    if (entry.is_directory()) left.push_back(entry.path().filename().string());
  EXPECT_THAT(left, testing::Contains("step-000000000050"));
  EXPECT_THAT(left, testing::Contains("step-000000000040"));
  EXPECT_THAT(left, testing::Not(testing::Contains("step-000000000020"))) << "of the process before";
  EXPECT_THAT(left, testing::Not(testing::Contains("step-000000000035")));
}

TEST_F(RunOptions, ARunGoesOnWithAnotherNumberOfRanks) {
  for (const int then : {1, 4}) {
    TestFolder folder;
    RunSpec spec;
    spec.root = folder.path();
    spec.dropout = 0;
    spec.with_norm = false;  // a batch of one sample has no variance
    spec.world_size = 2;
    spec.config = TestConfig({{"steps", 20}, {"checkpoint", {{"async_enabled", false}}}});
    for (const RankRun& run : TrainAll(spec)) ASSERT_TRUE(run.result.ok()) << run.result.status();
    spec.world_size = then;
    spec.ledger = nullptr;
    spec.candidates = {folder.At(10)};
    const auto runs = TrainAll(spec);
    for (const RankRun& run : runs) {
      ASSERT_TRUE(run.result.ok()) << run.result.status();
      EXPECT_EQ(run.result->step, 20);
      EXPECT_EQ(run.reports.back().resumed_from_step, 10);
      ExpectSameModel(runs[0].model, run.model);
    }
  }
}

TEST_F(RunOptions, AllRanksWriteIntoTheFolderOfTheMainProcess) {
  TestFolder other;
  RunRanks(2, /*shared_memory=*/true, [&](ProcessGroup* group) {
    TorchRunnerOptions options = Options(std::make_shared<TestNet>(0.0));
    options.members = group;
    json changes = {{"steps", 4}, {"dir", group->rank() == 0 ? folder_.path() : other.path()}};
    changes["heartbeat"]["enabled"] = true;
    auto runner = TorchRunner::Create(TestConfig(changes), std::move(options));
    ASSERT_TRUE(runner.ok()) << runner.status();
    ASSERT_TRUE((*runner)->Train().ok());
  });
  EXPECT_TRUE(std::filesystem::exists(folder_.path() + "/heartbeats/rank-00001.json"));
  EXPECT_TRUE(std::filesystem::is_empty(other.path()));
}

TEST_F(RunOptions, WeightsOfOthersAreRenamed) {
  torch::nn::Linear layer(2, 3);
  const TensorMap weights = {{"module.backbone.fc.weight", torch::ones({3, 2})},
                             {"module.backbone.fc.bias", torch::ones({3})}};
  EXPECT_FALSE(LoadWeights(weights, {}, layer.get()).ok());
  const auto report = LoadWeights(weights, {.rename = {{"^backbone\\.(fc)\\.", "$1_"}, {"^fc_", ""}}}, layer.get());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->loaded, testing::UnorderedElementsAre("weight", "bias"));
  EXPECT_TRUE(torch::equal(layer->weight, torch::ones({3, 2})));
  const auto clash = LoadWeights(weights, {.rename = {{"^.+$", "weight"}}}, layer.get());
  EXPECT_THAT(std::string(clash.status().message()), HasSubstr("two tensors of the file become 'weight'"));
}

class Mine : public TorchRunner {
 public:
  Mine(RunnerConfig config, TorchRunnerOptions options, int* steps)
      : TorchRunner(std::move(config), std::move(options)), steps_(steps) {}

 private:
  StepOutput TrainStep(const Batch& batch) override {
    ++*steps_;
    return TorchRunner::TrainStep(batch);
  }
  int* steps_;
};

TEST_F(RunOptions, TheSelectorMakesRunnersOfEachKind) {
  const auto plain = Runner::Create(TestConfig(At({{"steps", 10}})), Options());
  ASSERT_TRUE(plain.ok()) << plain.status();
  ASSERT_TRUE((*plain)->Train().ok());
  int steps = 0;
  const auto mine =
      Runner::Make<Mine>(TestConfig({{"steps", 3}, {"workspace_root", folder_.path()}}), Options(), &steps);
  ASSERT_TRUE(mine.ok()) << mine.status();
  ASSERT_TRUE((*mine)->Train().ok());
  EXPECT_EQ(steps, 3);
  const std::string latest = folder_.path() + "/checkpoints/latest";
  const auto again = Runner::FromCheckpoint(latest, Options());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ((*again)->state().step, 10);
  const auto weights = Runner::FromPretrained(TestConfig({{"workspace_root", folder_.path()}}), latest, Options());
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ((*weights)->state().step, 0);
}

}  // namespace
}  // namespace athanor
