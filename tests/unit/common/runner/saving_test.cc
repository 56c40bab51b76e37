// Saving and loading by hand, runners from checkpoints, steps of a class of one's own, metrics.
#include <fstream>
#include <numeric>

#include "athanor/checkpoint/alias_files.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/metrics/metric_factory.h"
#include "athanor/runner/state/run_checkpoints.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

TorchRunnerOptions Options(std::shared_ptr<TestNet> net, const std::string& folder) {
  TorchRunnerOptions options;
  options.model = net;
  options.datasets = {{"train", TestData(100, 1)}, {"val", TestData(37, 2)}};
  options.forward = [net](const Batch& batch) {
    const torch::Tensor logits = net->forward(batch.input);
    return StepOutput{torch::nn::functional::cross_entropy(logits, batch.target),
                      {{"accuracy", (logits.argmax(1) == batch.target).to(torch::kFloat).mean()}}};
  };
  options.workspace_from_config = false;
  if (folder.empty()) return options;
  Workspace workspace;
  workspace.dir = folder;
  workspace.checkpoint_dir = folder + "/checkpoints";
  workspace.timestamp = "20261124-100000-000000";
  options.workspace = workspace;
  return options;
}

std::unique_ptr<TorchRunner> MakeRunner(const RunnerConfig& config, const std::string& folder) {
  auto runner = TorchRunner::Create(config, Options(std::make_shared<TestNet>(), folder));
  EXPECT_TRUE(runner.ok()) << runner.status();
  return *std::move(runner);
}

TensorMap Weights(TorchRunner& runner) {
  TensorMap weights;
  for (const auto& item : runner.model().named_parameters()) weights[item.key()] = item.value().detach().clone();
  for (const auto& item : runner.model().named_buffers()) weights[item.key()] = item.value().clone();
  return weights;
}

// 30 updates, a checkpoint every 10: their names, what is best, and the end.
TEST(Saving, ARunNamesItsCheckpoints) {
  TestFolder folder;
  auto runner = MakeRunner(TestConfig({{"evaluate", {{"interval", 10}}}, {"checkpoint", {{"async_enabled", false}}}}),
                           folder.path());
  const auto result = runner->Train();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(ReadAliases(folder.path() + "/checkpoints"),
              UnorderedElementsAre(Pair("latest", 30), Pair("best", result->best_step), Pair("ckpt-s000000000010", 10),
                                   Pair("ckpt-s000000000020", 20), Pair("ckpt-s000000000030", 30)));
}

std::unique_ptr<TorchRunner> RunnerThatDiesInEvaluation(const RunnerConfig& config, const std::string& folder) {
  auto net = std::make_shared<TestNet>();
  TorchRunnerOptions options = Options(net, folder);
  options.forward = [net, train = options.forward](const Batch& batch) {
    if (!net->is_training()) throw std::runtime_error("the evaluation is broken");
    return train(batch);
  };
  auto runner = TorchRunner::Create(config, std::move(options));
  EXPECT_TRUE(runner.ok()) << runner.status();
  return *std::move(runner);
}

// What is on disk while the last evaluation runs: where a process that dies in it is taken up again.
TEST(Saving, TheTrainingIsOnDiskBeforeItsLastEvaluation) {
  const nlohmann::json changes = {{"steps", nullptr},
                                  {"epochs", 2},
                                  {"checkpoint", {{"interval", 0}}},
                                  {"sched", {{"type", "reduce_on_plateau"}, {"patience", 0}, {"factor", 0.5}}},
                                  {"score", {{"name", "loss"}, {"direction", "max"}}}};
  TestFolder whole_folder, folder;
  auto whole = MakeRunner(TestConfig(changes), whole_folder.path());
  ASSERT_TRUE(whole->Train().ok());

  // The copy is made by the evaluation itself, as a crash there would leave it.
  const std::string root = folder.path() + "/checkpoints", copy = folder.path() + "/copy";
  auto net = std::make_shared<TestNet>();
  TorchRunnerOptions options = Options(net, folder.path());
  options.forward = [net, train = options.forward, root, copy](const Batch& batch) {
    if (!net->is_training() && std::filesystem::exists(root + "/latest.pointer") && !std::filesystem::exists(copy))
      std::filesystem::copy(root, copy, std::filesystem::copy_options::recursive);
    return train(batch);
  };
  auto first = TorchRunner::Create(TestConfig(changes), std::move(options));
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE((*first)->Train().ok());
  ASSERT_TRUE(std::filesystem::exists(copy)) << "nothing was saved before the last evaluation";

  nlohmann::json again = changes;
  again["resume"] = copy + "/latest.pointer";
  TestFolder end_folder;
  auto second = MakeRunner(TestConfig(again), end_folder.path());
  const auto result = second->Train();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->step, 26);
  ExpectSameModel(Weights(*whole), Weights(*second));
  // And what follows it goes on as after an undisturbed end: more epochs give the same weights.
  std::map<std::string, torch::Tensor> ends[2];
  const std::string starts[2] = {whole_folder.path(), end_folder.path()};
  for (int i = 0; i < 2; ++i) {
    nlohmann::json more = changes;
    more["epochs"] = 4;
    more["resume"] = starts[i] + "/checkpoints/latest.pointer";
    TestFolder last;
    auto runner = MakeRunner(TestConfig(more), last.path());
    const auto done = runner->Train();
    ASSERT_TRUE(done.ok()) << done.status();
    EXPECT_EQ(done->step, 52);
    ends[i] = Weights(*runner);
  }
  ExpectSameModel(ends[0], ends[1]);
}

TEST(Saving, AStateInMemoryGoesOnLikeACheckpoint) {
  auto first = MakeRunner(TestConfig(), "");
  ASSERT_TRUE(first->Train().ok());
  const auto state = first->StateDict();
  ASSERT_TRUE(state.ok()) << state.status();
  const TensorMap at_30 = Weights(*first);

  auto second = MakeRunner(TestConfig({{"steps", 40}, {"sched", {{"total_steps", 40}}}}), "");
  ASSERT_TRUE(second->LoadStateDict(*state).ok());
  ExpectSameModel(at_30, Weights(*second));
  EXPECT_EQ(second->state().step, 30);
  const auto result = second->Train();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->step, 40);
  EXPECT_TRUE(torch::equal(state->replicated.at("model.first.weight"), at_30.at("first.weight"))) << "a copy";

  TrainingState other = *state;
  other.replicated.erase("model.first.weight");
  EXPECT_TRUE(absl::IsInvalidArgument(MakeRunner(TestConfig(), "")->LoadStateDict(other)));
}

TEST(Saving, TheStatesOfARunnerLoadPartByPart) {
  auto runner = MakeRunner(TestConfig(), "");
  ASSERT_TRUE(runner->Train().ok());
  RunnerState state = runner->CaptureRunnerState();
  EXPECT_EQ(state.train.step, 30);
  const torch::Tensor next = torch::rand({4});
  ASSERT_TRUE(state.rng.Restore(torch::kCPU).ok());
  EXPECT_TRUE(torch::equal(torch::rand({4}), next));

  RunnerState loaded;
  ASSERT_TRUE(loaded.LoadStateDict({{"train", state.StateDict().at("train")}, {"unknown", 1}}).ok());
  EXPECT_EQ(loaded.train.samples, state.train.samples);
  nlohmann::json damaged = state.StateDict();
  damaged["elastic"]["restarts"] = -1;
  damaged["train"]["step"] = 7;
  EXPECT_THAT(std::string(loaded.LoadStateDict(damaged).message()), HasSubstr("elastic.restarts"));
  EXPECT_EQ(loaded.train.step, 30) << "nothing half-done";
}

TEST(Saving, ABrokenLastEvaluationCostsNothingButItself) {
  TestFolder folder;
  auto runner = RunnerThatDiesInEvaluation(
      TestConfig({{"evaluate", {{"interval", 1000}}}, {"checkpoint", {{"interval", 0}}}}), folder.path());
  const auto result = runner->Train();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->notes, testing::Contains(HasSubstr("the evaluation is broken")));
  EXPECT_THAT(ReadAliases(folder.path() + "/checkpoints"), testing::Contains(Pair("latest", 30)));
}

// Trains with an AUROC over each log interval, and gives the rows of results.json.
nlohmann::json MeasuredRows(const nlohmann::json& changes, const std::string& folder) {
  auto net = std::make_shared<TestNet>();
  TorchRunnerOptions options = Options(net, folder);
  options.forward = [net](const Batch& batch) {
    const torch::Tensor logits = net->forward(batch.input);
    StepOutput output{torch::nn::functional::cross_entropy(logits, batch.target)};
    output.scores = logits;
    output.labels = batch.target;
    return output;
  };
  options.metrics = [](std::shared_ptr<MeterSync> sync) {
    return BuildMetrics({.type = "multiclass", .num_classes = 3, .scores = Scores::kLogits, .sync = std::move(sync)});
  };
  auto runner = TorchRunner::Create(TestConfig(changes), std::move(options));
  EXPECT_TRUE(runner.ok()) << runner.status();
  const auto result = (*runner)->Train();
  EXPECT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->notes, testing::IsEmpty());
  std::ifstream file(folder + "/results.json");
  return nlohmann::json::parse(file).at("results");
}

// A run that goes on shows what it measured before: rows of results, and the means of the interval under way.
TEST(Saving, MeasurementsGoOnAfterAResume) {
  const nlohmann::json changes = {
      {"evaluate", {{"interval", 6}}},
      {"log_interval", 8},
      {"checkpoint", {{"interval", 12}, {"async_enabled", false}}}};  // none left out for a busy writer
  TestFolder whole, folder;
  const nlohmann::json expected = MeasuredRows(changes, whole.path());
  MeasuredRows(changes, folder.path());
  std::filesystem::remove(folder.path() + "/results.json");
  nlohmann::json again = changes;
  again["resume"] = folder.path() + "/checkpoints/ckpt-s000000000012.pointer";  // between two read-outs
  const nlohmann::json found = MeasuredRows(again, folder.path());
  ASSERT_EQ(expected.size(), 5u);
  EXPECT_GT(expected.at("18").at("train").at("auroc"), 0);
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [index, row] : expected.items()) EXPECT_EQ(found.at(index), row) << index;
}

TEST(Saving, KeepsTheNewestAndTheBest) {
  TestFolder folder;
  const nlohmann::json changes = {{"evaluate", {{"interval", 5}}},
                                  {"score", {{"name", "loss"}, {"direction", "max"}}},
                                  {"checkpoint", {{"interval", 5}, {"keep_latest_k", 2}, {"async_enabled", false}}}};
  auto runner = MakeRunner(TestConfig(changes), folder.path());
  const auto result = runner->Train();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->best_step, 5);  // the loss falls, and the largest is best
  const std::string root = folder.path() + "/checkpoints";
  EXPECT_THAT(ReadAliases(root), UnorderedElementsAre(Pair("latest", 30), Pair("best", 5),
                                                      Pair("ckpt-s000000000025", 25), Pair("ckpt-s000000000030", 30)));
  const auto kept = ListCheckpoints(root);
  ASSERT_TRUE(kept.ok());
  EXPECT_EQ(kept->size(), 3u);
}

// Asked for by hand in a task of one's own, and continued from its name: the run ends as the undisturbed one.
TEST(Saving, ANamedCheckpointIsAPlaceToGoOnFrom) {
  TestFolder folder, other;
  auto runner = MakeRunner(TestConfig({{"steps", 12}, {"sched", {{"type", ""}}}}), folder.path());
  ASSERT_TRUE(runner->SaveSeedCheckpoint().ok());
  ASSERT_TRUE(runner->Train().ok());
  const auto plan = runner->SaveCheckpoint({.name = "snap", .force = true});
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_TRUE(runner->WaitForCheckpoints().ok());
  const std::string root = folder.path() + "/checkpoints";
  EXPECT_EQ(ReadAliases(root).at("snap"), 12);
  EXPECT_EQ(ReadAliases(root).at("seed"), 0);
  EXPECT_THAT(std::string(runner->SaveCheckpoint({.name = "../x"}).status().message()), HasSubstr("'../x'"));

  auto net = std::make_shared<TestNet>();
  auto again = TorchRunner::FromCheckpoint(root + "/snap", Options(net, other.path()),
                                           [](RunnerConfig* config) { config->steps = 30; });
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ((*again)->state().step, 12);
  ASSERT_TRUE((*again)->Train().ok());

  auto whole = MakeRunner(TestConfig({{"sched", {{"type", ""}}}}), "");
  ASSERT_TRUE(whole->Train().ok());
  ExpectSameModel(Weights(**again), Weights(*whole));
  const auto config = ReadRunnerConfig(root + "/latest");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->steps, 12);
}

TEST(Saving, LoadsPartByPart) {
  TestFolder folder;
  auto trained = MakeRunner(TestConfig({{"ema", {{"enabled", true}}}}), folder.path());
  ASSERT_TRUE(trained->Train().ok());
  const std::string latest = folder.path() + "/checkpoints/latest.pointer";
  auto runner = MakeRunner(TestConfig(), "");
  const TensorMap before = Weights(*runner);
  ASSERT_TRUE(runner->LoadCheckpoint(latest, {"train"}).ok());
  EXPECT_EQ(runner->state().step, 30);
  ExpectSameModel(Weights(*runner), before);
  ASSERT_TRUE(runner->LoadCheckpoint(latest, {"model"}).ok());
  ExpectSameModel(Weights(*runner), Weights(*trained));
  EXPECT_THAT(std::string(runner->LoadCheckpoint(latest, {"modle"}).message()), HasSubstr("'modle'; allowed: model,"));
  EXPECT_FALSE(runner->LoadCheckpoint(folder.path() + "/checkpoints/nothing").ok());
}

// The average of the weights is what others want.
TEST(Saving, PretrainedTakesTheAverage) {
  TestFolder folder;
  auto trained = MakeRunner(TestConfig({{"ema", {{"enabled", true}, {"decay", 0.9}}}}), folder.path());
  ASSERT_TRUE(trained->Train().ok());
  auto net = std::make_shared<TestNet>();
  auto runner =
      TorchRunner::FromPretrained(TestConfig(), folder.path() + "/checkpoints/step-000000000030", Options(net, ""));
  ASSERT_TRUE(runner.ok()) << runner.status();
  EXPECT_EQ((*runner)->state().step, 0);
  EXPECT_FALSE(torch::equal(net->first->weight, Weights(*trained).at("first.weight")));
  const auto ours = (*runner)->Evaluate("val"), theirs = trained->Evaluate("val");
  ASSERT_TRUE(ours.ok() && theirs.ok());
  EXPECT_EQ(ours->at("loss"), theirs->at("loss"));  // evaluation is on the average
}

TEST(Saving, FailOnErrorFails) {
  TestFolder folder;
  auto runner =
      MakeRunner(TestConfig({{"checkpoint", {{"fail_on_error", true}, {"async_mode", "disabled"}}}}), folder.path());
  // A file where the folder of step 10 must be.
  std::filesystem::create_directories(folder.path() + "/checkpoints");
  std::ofstream(folder.path() + "/checkpoints/step-000000000010") << "in the way";
  const absl::Status status = runner->Train().status();
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("fail_on_error"));
}

// Every step is replaced by one of the same effect; the counts show that they are called, the weights that nothing else
// changes.
class OwnSteps : public TorchRunner {
 public:
  OwnSteps(RunnerConfig config, TorchRunnerOptions options, std::shared_ptr<TestNet> net)
      : TorchRunner(std::move(config), std::move(options)), net_(std::move(net)) {}
  int trained = 0, evaluated = 0, inferred = 0, backwards = 0, updates = 0;

 protected:
  StepOutput TrainStep(const Batch& batch) override {
    ++trained;
    StepOutput output = Loss(batch);
    Accumulate(output, batch);
    return output;
  }
  StepOutput EvaluateStep(const Batch& batch) override {
    ++evaluated;
    EXPECT_FALSE(torch::GradMode::is_enabled());
    return Loss(batch);
  }
  torch::Tensor InferStep(const Batch& batch) override {
    ++inferred;
    return net_->forward(batch.input).argmax(1);
  }
  void Backward(const torch::Tensor& loss) override {
    ++backwards;
    loss.backward();
  }
  absl::StatusOr<bool> OptimizerStep(const std::variant<double, torch::Tensor>& factor) override {
    ++updates;
    return TorchRunner::OptimizerStep(factor);
  }

 private:
  StepOutput Loss(const Batch& batch) {
    return {torch::nn::functional::cross_entropy(net_->forward(batch.input), batch.target), {}};
  }
  std::shared_ptr<TestNet> net_;
};

TEST(OwnSteps, EachStepCanBeReplaced) {
  const RunnerConfig config = TestConfig({{"accum_steps", 2}, {"max_grad_norm", 1.0}});
  auto net = std::make_shared<TestNet>();
  TorchRunnerOptions options = Options(net, "");
  options.forward = nullptr;
  EXPECT_THAT(std::string(TorchRunner::Create(config, options).status().message()), HasSubstr("no forward function"));
  auto own = TorchRunner::Make<OwnSteps>(config, std::move(options), net);
  ASSERT_TRUE(own.ok()) << own.status();
  ASSERT_TRUE((*own)->Train().ok());
  EXPECT_EQ((*own)->updates, 30);
  EXPECT_EQ((*own)->backwards, (*own)->trained);
  EXPECT_GT((*own)->trained, 50);
  EXPECT_GT((*own)->evaluated, 0);
  const auto classes = (*own)->Infer("val");
  ASSERT_TRUE(classes.ok()) << classes.status();
  EXPECT_EQ(classes->numel(), 37);
  EXPECT_EQ((*own)->inferred, 5);
  auto plain = MakeRunner(config, "");
  ASSERT_TRUE(plain->Train().ok());
  ExpectSameModel(Weights(**own), Weights(*plain));
}

class Forgetful : public TorchRunner {
 public:
  using TorchRunner::TorchRunner;

 protected:
  StepOutput TrainStep(const Batch& batch) override { return Forward(batch); }
};

TEST(OwnSteps, AStepWithoutGradientsIsNamed) {
  auto runner = TorchRunner::Make<Forgetful>(TestConfig(), Options(std::make_shared<TestNet>(), ""));
  ASSERT_TRUE(runner.ok());
  EXPECT_THAT(std::string((*runner)->Train().status().message()), HasSubstr("must call Accumulate() once"));
}

// Metrics of the whole split, not means over batches; and those of training beside the loss.
TEST(Metrics, AreExactOverASplit) {
  auto net = std::make_shared<TestNet>();
  TorchRunnerOptions options = Options(net, "");
  options.forward = [net](const Batch& batch) {
    const torch::Tensor logits = net->forward(batch.input);
    StepOutput output{torch::nn::functional::cross_entropy(logits, batch.target), {}};
    output.scores = logits;
    output.labels = batch.target;
    return output;
  };
  options.predict = [net](const Batch& batch) { return net->forward(batch.input); };
  const auto metrics = [](std::shared_ptr<MeterSync> sync) {
    return BuildMetrics({.type = "multiclass", .num_classes = 3, .scores = Scores::kLogits, .sync = std::move(sync)});
  };
  options.metrics = metrics;
  auto runner = TorchRunner::Create(TestConfig(), std::move(options));
  ASSERT_TRUE(runner.ok()) << runner.status();
  const auto result = (*runner)->Train();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->metrics.at("train.auroc"), 0);  // of the last five updates
  auto expected = metrics(nullptr);
  ASSERT_TRUE(expected.ok());
  std::vector<torch::Tensor> targets;
  const auto scores = (*runner)->Infer("val");
  ASSERT_TRUE(scores.ok());
  const auto all = TestData(37, 2)->Get([] {
    std::vector<int64_t> indices(37);
    std::iota(indices.begin(), indices.end(), 0);
    return indices;
  }());
  (*expected)->Update(*scores, all->target);
  const auto values = (*expected)->Average();
  ASSERT_TRUE(values.ok()) << values.status();
  for (const auto& [name, value] : *values) {
    EXPECT_NEAR(result->metrics.at("val." + name), value.item<double>(), 1e-6) << name;
  }
}

}  // namespace
}  // namespace athanor
