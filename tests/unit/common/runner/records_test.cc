// Record files of a run that was killed and goes on, the lines that it tells, and work that nobody asked for.
#include <fstream>
#include <set>

#include "athanor/checkpoint/alias_files.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using json = nlohmann::json;

class Notes : public RunnerHooks {
 public:
  void OnNote(const std::string& text) override {
    if (text.find("optimizer") != 0) notes.push_back(text);  // the first line of every run
  }
  std::vector<std::string> notes;
};

class Records : public testing::Test {
 protected:
  // 30 updates with a read-out after each, evaluated every 5; a checkpoint every 10.
  json Changes(const json& more = json::object()) {
    json changes = {{"dir", folder_.path()},
                    {"auto_resume", true},
                    {"log_interval", 1},
                    {"csv", true},
                    {"jsonl", true},
                    {"tensorboard", true},
                    {"evaluate", {{"interval", 5}}},
                    {"score", {{"name", "loss"}, {"direction", "max"}}},
                    {"checkpoint", {{"interval", 10}, {"async_enabled", false}}}};
    changes.merge_patch(more);
    return changes;
  }
  // `dies_at`: in that update, as far as its files know; 0: never.
  absl::StatusOr<RunResult> Run(const json& changes, int64_t dies_at = 0) {
    auto net = std::make_shared<TestNet>();
    TorchRunnerOptions options;
    options.model = net;
    options.hooks = &hooks_;
    options.datasets = {{"train", TestData(100, 1)}, {"val", TestData(37, 2)}};
    TorchRunner* running = nullptr;
    options.forward = [&running, net, dies_at, this](const Batch& batch) {
      if (net->is_training() && on_step_) on_step_(running->state().step);
      if (net->is_training() && dies_at > 0 && running->state().step + 1 == dies_at) throw std::runtime_error("killed");
      return StepOutput{torch::nn::functional::cross_entropy(net->forward(batch.input), batch.target), {}};
    };
    auto runner = TorchRunner::Create(TestConfig(changes), std::move(options));
    RETURN_IF_ERROR(runner.status());
    running = runner->get();
    return running->Train();
  }
  std::vector<std::string> Lines(const std::string& name) {
    std::ifstream file(folder_.path() + "/" + name);
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) lines.push_back(line);
    return lines;
  }
  // Steps of the rows that have this value, in the order of the file.
  std::vector<int64_t> JsonSteps(const std::string& value) {
    std::vector<int64_t> steps;
    for (const std::string& line : Lines("metrics.jsonl")) {
      const json row = json::parse(line);
      if (row.contains(value)) steps.push_back(row.at("step").get<int64_t>());
    }
    return steps;
  }
  std::vector<int64_t> CsvSteps(const std::string& value) {
    std::vector<int64_t> steps;
    for (const std::string& line : Lines("metrics.csv")) {
      if (line.find("," + value + ",") != std::string::npos)
        steps.push_back(std::stoll(line.substr(line.find(',') + 1)));
    }
    return steps;
  }
  static std::vector<int64_t> Every(int64_t interval) {
    std::vector<int64_t> steps;
    for (int64_t step = interval; step <= 30; step += interval) steps.push_back(step);
    return steps;
  }

  TestFolder folder_;
  Notes hooks_;
  std::function<void(int64_t step)> on_step_;
};

TEST_F(Records, NoStepStandsTwiceAfterAResume) {
  for (const int64_t dies_at : {16, 20, 23}) {  // after an evaluation off the cadence; before a save; after one
    SCOPED_TRACE(dies_at);
    std::filesystem::remove_all(folder_.path());
    ASSERT_FALSE(Run(Changes(), dies_at).ok());
    EXPECT_EQ(JsonSteps("train.loss").back(), dies_at - 1);
    const auto result = Run(Changes());
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(JsonSteps("train.loss"), Every(1));
    EXPECT_EQ(JsonSteps("val.loss"), Every(5));
    EXPECT_EQ(CsvSteps("train.loss"), Every(1));
    EXPECT_EQ(CsvSteps("val.loss"), Every(5));
    const std::string events = folder_.path() + "/tensorboard";
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(events), {}), 1) << "one run for its readers";
  }
}

TEST_F(Records, ARunThatStartsOverSetsItsRowsAside) {
  ASSERT_FALSE(Run(Changes(), /*dies_at=*/4).ok());  // before its first checkpoint
  ASSERT_TRUE(Run(Changes()).ok());
  EXPECT_EQ(JsonSteps("train.loss"), Every(1));
  EXPECT_EQ(CsvSteps("train.loss"), Every(1));
  EXPECT_EQ(Lines("metrics.1.jsonl").size(), 3u);
  EXPECT_EQ(Lines("metrics.csv").front(), "time,step,epoch,name,value");
}

TEST_F(Records, ResultsOfRowsThatAreGoneAreGone) {
  ASSERT_FALSE(Run(Changes(), /*dies_at=*/18).ok());
  int64_t looked = 0;
  on_step_ = [&](int64_t step) {
    if (step != 10) return;
    ++looked;
    const json results = json::parse(std::ifstream(folder_.path() + "/results.json")).at("results");
    EXPECT_EQ(results.size(), 2u) << results;
    EXPECT_EQ(json::parse(std::ifstream(folder_.path() + "/latest.json")).at("index"), 10);
    EXPECT_LE(json::parse(std::ifstream(folder_.path() + "/best.json")).at("index"), 10);
  };
  ASSERT_TRUE(Run(Changes()).ok());
  EXPECT_EQ(looked, 1);
}

TEST_F(Records, EventsAreOnDiskWhileTheRunGoesOn) {
  int64_t bytes = 0;
  on_step_ = [&](int64_t step) {
    if (step != 4) return;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_.path() + "/tensorboard"))
      bytes += entry.is_regular_file() ? static_cast<int64_t>(entry.file_size()) : 0;
  };
  ASSERT_TRUE(Run(Changes()).ok());
  EXPECT_GT(bytes, 1000);
}

TEST_F(Records, ALineTellsWhatTheRunStartedFromAndWhyItEnded) {
  ASSERT_FALSE(Run(Changes(), /*dies_at=*/12).ok());
  EXPECT_THAT(hooks_.notes, ElementsAre());
  ASSERT_TRUE(Run(Changes()).ok());
  const std::string root = folder_.path() + "/checkpoints/";
  EXPECT_THAT(hooks_.notes, ElementsAre("resumed from step 10 of " + root + "step-000000000010"));
  hooks_.notes.clear();
  TestFolder other;
  ASSERT_TRUE(Run(Changes({{"dir", other.path()},
                           {"pretrained", root + "latest"},
                           {"patience", 0},
                           {"optim", {{"lr", 0}, {"weight_decay", 0}}},
                           {"sched", {{"type", ""}}}}))
                  .ok());
  EXPECT_THAT(hooks_.notes, Contains("loaded 9 tensors from " + root + "latest"));
  EXPECT_THAT(hooks_.notes, Contains(HasSubstr("evaluations without a better val.loss; best ")));
}

TEST_F(Records, AutoResumeReadsNoOtherRunsManifests) {
  const json changes = {{"workspace_root", folder_.path()}, {"steps", 10}, {"auto_resume", true}};
  ASSERT_TRUE(Run(changes).ok());
  std::string manifest;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_.path())) {
    if (entry.path().filename() == "manifest.json") manifest = entry.path().string();
  }
  ASSERT_FALSE(manifest.empty());
  std::ofstream(manifest) << "{";  // whoever read it would see no checkpoint there
  json longer = changes;
  longer["steps"] = 20;
  const auto result = Run(longer);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->notes, Contains(HasSubstr("this configuration could go on from")));
}

// Remembers the passes of which samples were asked for.
class PassesData : public Dataset {
 public:
  int64_t size() const override { return inner_->size(); }
  absl::StatusOr<Batch> Get(const std::vector<int64_t>& indices) const override { return inner_->Get(indices); }
  absl::StatusOr<Batch> GetInEpoch(const std::vector<int64_t>& indices, int64_t epoch) const override {
    const std::lock_guard lock(mutex_);
    passes_.insert(epoch);
    return inner_->Get(indices);
  }
  std::set<int64_t> passes() const {
    const std::lock_guard lock(mutex_);
    return passes_;
  }

 private:
  std::shared_ptr<Dataset> inner_ = TestData(64, 1);
  mutable std::mutex mutex_;
  mutable std::set<int64_t> passes_;
};

TEST(Waste, NoPassIsMadeThatNobodyReads) {
  auto data = std::make_shared<PassesData>();
  auto net = std::make_shared<TestNet>();
  TorchRunnerOptions options;
  options.workspace_from_config = false;
  options.model = net;
  options.datasets = {{"train", data}};
  options.forward = [net](const Batch& batch) {
    return StepOutput{torch::nn::functional::cross_entropy(net->forward(batch.input), batch.target), {}};
  };
  {
    auto runner = TorchRunner::Create(
        TestConfig(
            {{"steps", nullptr}, {"epochs", 2}, {"sched", {{"type", ""}}}, {"dataloader", {{"num_workers", 2}}}}),
        std::move(options));
    ASSERT_TRUE(runner.ok()) << runner.status();
    ASSERT_TRUE((*runner)->Train().ok());
  }
  EXPECT_EQ(data->passes(), (std::set<int64_t>{0, 1}));
}

TEST(Waste, OnlySplitsThatAreReadHaveThreads) {
  const auto threads = [] { return std::distance(std::filesystem::directory_iterator("/proc/self/task"), {}); };
  auto net = std::make_shared<TestNet>();
  TorchRunnerOptions options;
  options.workspace_from_config = false;
  options.model = net;
  options.datasets = {{"train", TestData(64, 1)}, {"val", TestData(37, 2)}, {"other", TestData(37, 2)}};
  options.forward = [net](const Batch& batch) {
    return StepOutput{torch::nn::functional::cross_entropy(net->forward(batch.input), batch.target), {}};
  };
  const auto before = threads();
  auto runner = TorchRunner::Create(
      TestConfig({{"evaluate", {{"splits", {"val"}}}}, {"dataloader", {{"num_workers", 2}}}}), std::move(options));
  ASSERT_TRUE(runner.ok()) << runner.status();
  EXPECT_EQ(threads() - before, 4) << "two for training, two for val";
  EXPECT_TRUE((*runner)->Evaluate("other").ok());
  EXPECT_TRUE((*runner)->Evaluate("train").ok());
}

}  // namespace
}  // namespace athanor
