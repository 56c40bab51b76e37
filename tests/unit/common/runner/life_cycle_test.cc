// The order of saves and evaluations, restores that fail, and what counts as a step's time.
#include <fstream>

#include "athanor/checkpoint/alias_files.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Pair;
using json = nlohmann::json;

// Two epochs of 13 updates, a checkpoint and an evaluation after each, and what depends on them.
json Epochs(const json& changes = json::object()) {
  json all = {{"steps", nullptr},
              {"epochs", 2},
              {"patience", 5},
              {"sched", {{"type", "reduce_on_plateau"}, {"patience", 0}, {"factor", 0.5}}},
              {"score", {{"name", "loss"}, {"direction", "max"}}},
              {"checkpoint", {{"interval", 1}, {"async_enabled", false}}}};
  all.merge_patch(changes);
  return all;
}

class LifeCycle : public testing::Test {
 protected:
  TorchRunnerOptions Options() {
    auto net = std::make_shared<TestNet>();
    TorchRunnerOptions options;
    options.model = net;
    options.datasets = {{"train", TestData(100, 1)}, {"val", TestData(37, 2)}};
    options.forward = [this, net](const Batch& batch) {
      if (!net->is_training()) ++evaluated_;
      if (on_forward_) on_forward_(net->is_training());
      const torch::Tensor logits = net->forward(batch.input);
      return StepOutput{torch::nn::functional::cross_entropy(logits, batch.target), {}};
    };
    return options;
  }
  std::unique_ptr<TorchRunner> Make(const json& changes, const std::string& folder, RunnerHooks* hooks = nullptr) {
    evaluated_ = 0;
    json all = changes;
    if (!folder.empty()) all["dir"] = folder;
    TorchRunnerOptions options = Options();
    options.hooks = hooks;
    options.workspace_from_config = !folder.empty() || workspace_from_config_;
    auto runner = TorchRunner::Create(TestConfig(all), std::move(options));
    EXPECT_TRUE(runner.ok()) << runner.status();
    return *std::move(runner);
  }
  static std::map<std::string, torch::Tensor> Weights(TorchRunner& runner) {
    std::map<std::string, torch::Tensor> weights;
    for (const auto& item : runner.model().named_parameters()) weights[item.key()] = item.value().detach().clone();
    for (const auto& item : runner.model().named_buffers()) weights[item.key()] = item.value().clone();
    return weights;
  }
  static json Results(const std::string& folder) {
    std::ifstream file(folder + "/results.json");
    return json::parse(file).at("results");
  }
  static void Damage(const std::string& checkpoint) {
    for (const auto& file : std::filesystem::directory_iterator(checkpoint)) {
      if (file.path().extension() == ".safetensors") std::filesystem::resize_file(file.path(), 100);
    }
  }

  bool workspace_from_config_ = false;
  int evaluated_ = 0;  // batches, since the last Make()
  std::function<void(bool training)> on_forward_;
};

constexpr int kEvaluationBatches = 5;  // 37 samples, 8 each

TEST_F(LifeCycle, TheStateIsOnDiskBeforeEachEvaluation) {
  TestFolder whole_folder, folder;
  auto whole = Make(Epochs(), whole_folder.path());
  ASSERT_TRUE(whole->Train().ok());
  // The copy is made by the first evaluation, as a process that dies in it would leave it.
  const std::string root = folder.path() + "/checkpoints", copy = folder.path() + "/copy";
  on_forward_ = [&](bool training) {
    if (!training && !std::filesystem::exists(copy))
      std::filesystem::copy(root, copy, std::filesystem::copy_options::recursive);
  };
  ASSERT_TRUE(Make(Epochs(), folder.path())->Train().ok());
  EXPECT_THAT(ReadAliases(copy), Contains(Pair("latest", 13)));
  on_forward_ = nullptr;
  TestFolder end;
  auto second = Make(Epochs({{"resume", copy + "/latest"}}), end.path());
  const auto result = second->Train();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(evaluated_, 2 * kEvaluationBatches) << "the first evaluation was never made";
  EXPECT_EQ(result->best_step, 13);
  ExpectSameModel(Weights(*whole), Weights(*second));
  EXPECT_EQ(Results(end.path()), Results(whole_folder.path()));
  EXPECT_THAT(ReadAliases(end.path() + "/checkpoints"), Contains(Pair("best", 13)))
      << "saved here after the evaluation";
}

TEST_F(LifeCycle, AnEvaluationThatWasMadeIsNotRepeated) {
  TestFolder whole_folder, folder;
  auto whole = Make(Epochs(), whole_folder.path());
  const auto expected = whole->Train();
  ASSERT_TRUE(expected.ok());
  std::vector<ProgressReport> reports;
  RecordingHooks hooks(/*stop_at=*/12, &reports);  // votes at the end of update 13
  auto first = Make(Epochs(), folder.path(), &hooks);
  const auto stopped = first->Train();
  ASSERT_TRUE(stopped.ok()) << stopped.status();
  EXPECT_EQ(stopped->outcome, RunOutcome::kPreempted);
  EXPECT_EQ(evaluated_, kEvaluationBatches);
  const std::string root = folder.path() + "/checkpoints";
  EXPECT_THAT(ReadAliases(root), Contains(Pair("best", 13)));
  const auto manifest = ReadManifest(root + "/step-000000000013");
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->metrics.at("val.loss"), stopped->metrics.at("val.loss"));

  auto second = Make(Epochs({{"auto_resume", true}}), folder.path());
  const auto result = second->Train();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(evaluated_, kEvaluationBatches) << "only the second pass";
  EXPECT_EQ(result->best_step, expected->best_step);
  EXPECT_EQ(result->best_score, expected->best_score);
  ExpectSameModel(Weights(*whole), Weights(*second));
  EXPECT_EQ(Results(folder.path()), Results(whole_folder.path()));
  // Other things to evaluate are evaluated.
  auto third =
      Make(Epochs({{"resume", root + "/step-000000000013"}, {"evaluate", {{"splits", {"val", "train"}}}}}), "");
  ASSERT_TRUE(third->Train().ok());
  EXPECT_EQ(evaluated_, 2 * (kEvaluationBatches + 13));
}

TEST_F(LifeCycle, AnEvaluationThatDrawsNumbersIsMadeAgain) {
  TestFolder whole_folder, folder;
  on_forward_ = [](bool training) {
    if (!training) torch::rand({1});
  };
  auto whole = Make(Epochs(), whole_folder.path());
  ASSERT_TRUE(whole->Train().ok());
  std::vector<ProgressReport> reports;
  RecordingHooks hooks(/*stop_at=*/12, &reports);  // votes at the end of update 13
  ASSERT_TRUE(Make(Epochs(), folder.path(), &hooks)->Train().ok());
  auto second = Make(Epochs({{"auto_resume", true}}), folder.path());
  ASSERT_TRUE(second->Train().ok());
  EXPECT_EQ(evaluated_, 2 * kEvaluationBatches);
  ExpectSameModel(Weights(*whole), Weights(*second));
}

TEST_F(LifeCycle, ARestoreThatFailedStaysAnError) {
  TestFolder folder;
  const json changes = {{"auto_resume", true}, {"checkpoint", {{"async_enabled", false}}}};
  ASSERT_TRUE(Make(changes, folder.path())->Train().ok());
  const std::string root = folder.path() + "/checkpoints", good = folder.path() + "/good";
  std::filesystem::copy(root, good, std::filesystem::copy_options::recursive);
  for (const auto& folder : std::filesystem::directory_iterator(root)) {
    if (folder.is_directory()) Damage(folder.path().string());
  }

  auto runner = Make(changes, folder.path());
  EXPECT_TRUE(absl::IsDataLoss(runner->Evaluate().status()));
  EXPECT_TRUE(absl::IsDataLoss(runner->Train().status())) << "and not trained from scratch";
  EXPECT_EQ(runner->state().step, 0);
  EXPECT_FALSE(runner->SaveCheckpoint({.force = true}).ok());
  ASSERT_TRUE(runner->LoadCheckpoint(good + "/step-000000000020").ok());
  const auto result = runner->Train();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->step, 30);
}

TEST_F(LifeCycle, AHalfLoadedStateIsNotTrained) {
  auto trained = Make(json::object(), "");
  ASSERT_TRUE(trained->Train().ok());
  const auto state = trained->StateDict();
  ASSERT_TRUE(state.ok());
  TrainingState half = *state;
  half.meta.erase("scheduler");
  auto runner = Make(json::object(), "");
  const absl::Status failed = runner->LoadStateDict(half);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(runner->Train().status().message(), failed.message());
  EXPECT_FALSE(runner->Evaluate().ok());
  ASSERT_TRUE(runner->LoadStateDict(*state).ok());
  EXPECT_TRUE(runner->Evaluate().ok());
}

TEST_F(LifeCycle, AStepEndsBeforeItsBoundary) {
  std::vector<ProgressReport> reports;
  RecordingHooks hooks(-1, &reports);
  auto runner = Make({{"steps", 3}, {"evaluate", {{"interval", 1}}}, {"checkpoint", {{"interval", 1}}}}, "", &hooks);
  ASSERT_TRUE(runner->Train().ok());
  double counted = -1;
  int evaluations = 0;
  for (const ProgressReport& report : reports) {
    if (report.phase == RunnerPhase::kEvaluating) {
      EXPECT_GT(report.step_seconds, 0) << "the step is counted when its evaluation begins";
      counted = report.step_seconds;
      ++evaluations;
    } else if (counted >= 0 && report.phase == RunnerPhase::kTraining) {
      EXPECT_EQ(report.step_seconds, counted) << "and the evaluation is not";
      counted = -1;
    }
  }
  EXPECT_EQ(evaluations, 3);
}

TEST_F(LifeCycle, APathToResumeFromIsEnough) {
  TestFolder folder;
  workspace_from_config_ = true;
  ASSERT_TRUE(Make({{"steps", 20}, {"sched", {{"type", ""}}}}, folder.path())->Train().ok());
  auto runner = Make(
      {{"sched", {{"type", ""}}}, {"checkpoint", {{"interval", 0}}}, {"resume", folder.path() + "/checkpoints/latest"}},
      "");
  const auto result = runner->Train();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->step, 30);
  EXPECT_EQ(runner->progress().resumed_from_step, 20);
  Damage(folder.path() + "/checkpoints/step-000000000020");
  auto damaged = Make(
      {{"sched", {{"type", ""}}}, {"checkpoint", {{"interval", 0}}}, {"resume", folder.path() + "/checkpoints/latest"}},
      "");
  EXPECT_TRUE(absl::IsDataLoss(damaged->Train().status()));
}

TEST_F(LifeCycle, ANameThatCannotBeWrittenDoesNotCostTheCheckpoint) {
  TestFolder folder;
  std::filesystem::create_directories(folder.path() + "/checkpoints/latest.pointer/in-the-way");
  auto runner = Make({{"checkpoint", {{"fail_on_error", true}, {"async_enabled", false}}}}, folder.path());
  const auto result = runner->Train();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->notes, Contains(HasSubstr("is saved: its name 'latest'")));
  EXPECT_EQ(runner->checkpoint_stats().failed, 0);
  const auto kept = ListCheckpoints(folder.path() + "/checkpoints");
  ASSERT_TRUE(kept.ok());
  EXPECT_GE(kept->size(), 3u);
}

}  // namespace
}  // namespace athanor
