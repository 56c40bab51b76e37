// What a run tells of itself, refuses at its start, and falls back on.
#include <csignal>
#include <fstream>

#include "athanor/checkpoint/alias_files.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/config/config_identity.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using json = nlohmann::json;

std::string TextOf(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class Reporting : public testing::Test {
 protected:
  TorchRunnerOptions Options(std::shared_ptr<TestNet> net = std::make_shared<TestNet>()) {
    TorchRunnerOptions options;
    options.model = net;
    options.datasets = {{"train", TestData(100, 1)}, {"val", TestData(37, 2)}};
    options.forward = [this, net](const Batch& batch) {
      if (on_forward_) on_forward_(net->is_training());
      const torch::Tensor logits = net->forward(batch.input);
      StepOutput output{torch::nn::functional::cross_entropy(logits, batch.target),
                        {{"accuracy", (logits.argmax(1) == batch.target).to(torch::kFloat).mean()}}};
      if (net->is_training()) losses_.emplace_back(output.loss.item<double>(), batch.size);
      return output;
    };
    return options;
  }
  // In the run's folder, which the configuration names.
  json At(json changes) {
    changes["dir"] = folder_.path();
    return changes;
  }
  absl::StatusOr<RunResult> Run(const json& changes) {
    losses_.clear();
    auto runner = TorchRunner::Create(TestConfig(changes), Options());
    RETURN_IF_ERROR(runner.status());
    return (*runner)->Train();
  }
  std::string Refusal(const json& changes) {
    const auto result = Run(changes);
    EXPECT_FALSE(result.ok()) << changes;
    EXPECT_EQ(FailureKindOf(result.status()), FailureKind::kInvalid);
    return std::string(result.status().message());
  }
  json File(const std::string& name) { return json::parse(TextOf(folder_.path() + "/" + name)); }
  std::string Log() {
    std::string text;
    for (const auto& file : std::filesystem::directory_iterator(folder_.path() + "/logs"))
      text += TextOf(file.path().string());
    return text;
  }
  double MeanLoss(size_t from, size_t to) {
    double sum = 0, weight = 0;
    for (size_t i = from; i < to; ++i) {
      sum += losses_[i].first * static_cast<double>(losses_[i].second);
      weight += static_cast<double>(losses_[i].second);
    }
    return sum / weight;
  }

  TestFolder folder_;
  std::function<void(bool training)> on_forward_;
  std::vector<std::pair<double, int64_t>> losses_;  // of training, with their batches' sizes
};

TEST_F(Reporting, RowsHoldTheMeansSinceTheRowBefore) {
  for (const int64_t log_interval : {0, 4, 100}) {
    SCOPED_TRACE(log_interval);
    TestFolder folder;
    const auto result =
        Run({{"dir", folder.path()}, {"steps", nullptr}, {"epochs", 2}, {"log_interval", log_interval}});
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(losses_.size(), 26u);
    const json rows = json::parse(TextOf(folder.path() + "/results.json")).at("results");
    EXPECT_NEAR(rows.at("1").at("train").at("loss").get<double>(), MeanLoss(0, 13), 1e-6);
    EXPECT_NEAR(rows.at("2").at("train").at("loss").get<double>(), MeanLoss(13, 26), 1e-6);
    EXPECT_TRUE(rows.at("2").at("train").contains("lr"));
    EXPECT_TRUE(result->metrics.contains("lr"));
  }
}

TEST_F(Reporting, ARunThatEvaluatesNothingHasRowsToo) {
  const auto result = Run(At({{"steps", nullptr}, {"epochs", 2}, {"train_splits", {"train", "val"}}}));
  ASSERT_TRUE(result.ok()) << result.status();
  const json rows = File("results.json").at("results");
  EXPECT_EQ(rows.size(), 2u);
  // Each split that is trained on has a row of its own: 13 batches of one, then 5 of the other.
  const size_t pass = losses_.size() / 2;
  EXPECT_NEAR(rows.at("2").at("train").at("loss").get<double>(), MeanLoss(pass, pass + 13), 1e-6);
  EXPECT_NEAR(rows.at("2").at("val").at("loss").get<double>(), MeanLoss(pass + 13, 2 * pass), 1e-6);
  EXPECT_TRUE(rows.at("2").at("val").contains("lr"));
  EXPECT_THAT(Log(), testing::AllOf(HasSubstr("training on train ["), HasSubstr("training on val [")));
  EXPECT_EQ(File("latest.json").at("index"), 2);
}

TEST_F(Reporting, EvaluationsWithinAPassHaveRowsOfTheirOwn) {
  ASSERT_TRUE(Run(At({{"steps", nullptr}, {"epochs", 2}, {"evaluate", {{"interval", 5}}}})).ok());
  std::vector<std::string> indices;
  const json rows = File("results.json").at("results");
  for (const auto& [index, row] : rows.items()) indices.push_back(index);
  EXPECT_THAT(indices, testing::UnorderedElementsAre("5", "10", "15", "20", "25", "26"));
}

TEST_F(Reporting, BestFileAndBestCheckpointAreOfOneStep) {
  // Nothing changes, so all scores are equal: the newest is the best, in the file and on disk.
  ASSERT_TRUE(Run(At({{"optim", {{"lr", 0}, {"weight_decay", 0}}},
                      {"sched", {{"type", ""}}},
                      {"score", {{"name", "loss"}}},
                      {"evaluate", {{"interval", 10}}},
                      {"checkpoint", {{"async_enabled", false}}}}))
                  .ok());
  EXPECT_EQ(File("best.json").at("index"), ReadAliases(folder_.path() + "/checkpoints").at("best"));
}

TEST_F(Reporting, APlateauIsToldWhatItMonitorsOrTheRunIsRefused) {
  const auto plateau = [this](const char* monitor, int64_t interval) {
    return At({{"steps", nullptr},
               {"epochs", 4},
               {"evaluate", {{"interval", interval}}},
               {"sched", {{"type", "reduce_on_plateau"}, {"patience", 0}, {"factor", 0.5}, {"monitor", monitor}}}});
  };
  EXPECT_THAT(Refusal(plateau("val.nope", 0)),
              HasSubstr("sched.monitor: nothing is measured as 'val.nope'; measured: val.accuracy, val.loss"));
  // Only evaluations count: with one in four passes the rate cannot fall.
  const auto result = Run(plateau("accuracy", 1000));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->metrics.at("lr"), 0.01);
  json nothing = plateau("loss", 0);
  nothing["train_splits"] = {"train", "val"};
  EXPECT_THAT(Refusal(nothing), HasSubstr("no split is evaluated"));
}

TEST_F(Reporting, NamesThatMeanNothingAreRefused) {
  EXPECT_THAT(Refusal(At({{"score", {{"split", "foo"}}}})),
              HasSubstr("score.split: 'foo' is not evaluated; allowed: val"));
  EXPECT_THAT(Refusal(At({{"score", {{"name", "nope"}}}, {"evaluate", {{"interval", 10}}}})),
              HasSubstr("score.name: nothing is measured as 'val.nope'; measured: val.accuracy, val.loss"));
  EXPECT_THAT(Refusal(At({{"dataloader", {{"tran", {{"batch_size", 3}}}}}})),
              HasSubstr("dataloader.tran: no such split; the splits are: train, val"));
  EXPECT_THAT(Refusal(At({{"dataloader", {{"val", {{"drop_last", true}}}}}})), HasSubstr("dataloader.val.drop_last"));
  EXPECT_THAT(Refusal(At({{"dataloader", {{"val", {{"shuffle", true}}}}}})), HasSubstr("dataloader.val.shuffle"));
  EXPECT_THAT(Refusal(At({{"train_splits", {"other"}}})),
              HasSubstr("no dataset 'other' to train on; given: train, val"));
}

TEST_F(Reporting, WhatIsPassedOverIsInTheLogAndInTheNotes) {
  const auto result =
      Run(At({{"optim", {{"param_groups", {{{"pattern", "no_such"}, {"lr", 0.1}}}}}}, {"auto_resume", true}}));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->notes, Contains(HasSubstr("\"no_such\" takes no parameter")));
  EXPECT_THAT(result->notes, Contains(HasSubstr("auto_resume: no checkpoint in")));
  EXPECT_THAT(Log(), HasSubstr("[WARNING] optim.param_groups[0].pattern \"no_such\" takes no parameter"));
  EXPECT_THAT(Log(), HasSubstr("[WARNING] auto_resume: no checkpoint in"));
}

TEST_F(Reporting, ChecksOfSavesThatFailedAreInTheSummary) {
  std::filesystem::create_directories(folder_.path() + "/checkpoints");
  for (const char* step : {"10", "20", "30"})
    std::ofstream(folder_.path() + "/checkpoints/step-0000000000" + step) << "a file in the way";
  const auto result = Run(At({{"checkpoint", {{"async_enabled", false}}}}));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GE(File("summary.json").at("checkpoint_failures").get<int64_t>(), 3);
  EXPECT_THAT(Log(), HasSubstr("[WARNING] not saved: "));
}

TEST_F(Reporting, TheLastCheckpointIsWholeWhateverTheWaitIs) {
  for (const double timeout : {0.0, 0.001, 60.0}) {
    TestFolder folder;
    const json changes = {{"dir", folder.path()}, {"steps", 10}, {"checkpoint", {{"wait_timeout", timeout}}}};
    ASSERT_TRUE(Run(changes).ok());
    json more = changes;
    more["steps"] = 12;
    more["auto_resume"] = true;
    auto runner = TorchRunner::Create(TestConfig(more), Options());
    ASSERT_TRUE(runner.ok()) << runner.status();
    const auto result = (*runner)->Train();
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ((*runner)->progress().resumed_from_step, 10) << timeout;
    EXPECT_THAT(result->notes, Not(Contains(HasSubstr("damaged"))));
  }
}

TEST_F(Reporting, AModelAloneIsPassedOverByAutoResume) {
  json changes = At({{"steps", 10}, {"auto_resume", true}});
  changes["checkpoint"] = {{"interval", 5}, {"last_save_model_only", true}, {"async_enabled", false}};
  ASSERT_TRUE(Run(changes).ok());
  changes["steps"] = 15;
  auto runner = TorchRunner::Create(TestConfig(changes), Options());
  ASSERT_TRUE(runner.ok()) << runner.status();
  const auto result = (*runner)->Train();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ((*runner)->progress().resumed_from_step, 5);
  EXPECT_THAT(result->notes, Contains(HasSubstr("passes over step 10, which holds the model alone")));
}

TEST_F(Reporting, AFreshFolderNamesTheRunThatItCouldGoOnFrom) {
  json changes = {{"workspace_root", folder_.path()}, {"steps", 10}, {"auto_resume", true}};
  const auto first = Run(changes);
  ASSERT_TRUE(first.ok()) << first.status();
  changes["steps"] = 20;  // may change, but is a configuration of its own
  const auto second = Run(changes);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_THAT(second->notes, Contains(testing::AllOf(HasSubstr("this configuration could go on from " + folder_.path()),
                                                     HasSubstr("step-000000000010"))));
}

TEST_F(Reporting, MorePatienceLetsARunGoOn) {
  json changes = At({{"steps", nullptr},
                     {"epochs", 6},
                     {"patience", 0},
                     {"auto_resume", true},
                     {"optim", {{"lr", 0}, {"weight_decay", 0}}},
                     {"sched", {{"type", ""}}}});
  const auto first = Run(changes);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_LT(first->epoch, 6);
  const auto same = Run(changes);
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_EQ(same->epoch, first->epoch);
  changes["patience"] = 50;
  const auto more = Run(changes);
  ASSERT_TRUE(more.ok()) << more.status();
  EXPECT_EQ(more->epoch, 6);
}

TEST_F(Reporting, OptionsThatNeedAFolderMakeOne) {
  // Nothing is asked for: nothing is written.
  RunnerConfig plain = TestConfig({{"steps", 3}});
  plain.checkpoint.interval.reset();
  EXPECT_FALSE(NeedsWorkspace(plain));
  const auto result = Run({{"workspace_root", folder_.path()}, {"steps", 3}, {"csv", true}, {"jsonl", true}});
  ASSERT_TRUE(result.ok()) << result.status();
  size_t tables = 0, checkpoints = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_.path())) {
    const std::string name = entry.path().filename().string();
    tables += name == "metrics.csv" || name == "metrics.jsonl" ? 1 : 0;
    checkpoints += name == "manifest.json" ? 1 : 0;
  }
  EXPECT_EQ(tables, 2u);
  EXPECT_EQ(checkpoints, 1u);
}

TEST_F(Reporting, ASignalLeavesAtAStepBoundaryWithACheckpoint) {
  int64_t steps = 0;
  on_forward_ = [&](bool training) {
    if (training && ++steps == 7) std::raise(SIGTERM);
  };
  const auto result = Run(At({{"checkpoint", {{"interval", 1000}}}}));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->outcome, RunOutcome::kPreempted);
  EXPECT_EQ(ReadAliases(folder_.path() + "/checkpoints").at("latest"), result->step);
  EXPECT_EQ(File("summary.json").at("status"), "preempted");
  // The handlers that were there before are back.
  struct sigaction now;
  sigaction(SIGTERM, nullptr, &now);
  EXPECT_EQ(now.sa_handler, SIG_DFL);
}

TEST_F(Reporting, AllSplitsAreEvaluatedByOneCall) {
  TorchRunnerOptions options = Options();
  options.datasets["test"] = TestData(20, 3);
  auto runner = TorchRunner::Create(TestConfig(At({})), std::move(options));
  ASSERT_TRUE(runner.ok()) << runner.status();
  const auto all = (*runner)->Evaluate();
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->size(), 4u);
  EXPECT_EQ(all->at("test.loss"), (*runner)->Evaluate("test")->at("loss"));
}

TEST_F(Reporting, PartsThatAreExcludedStayAsTheyAre) {
  ASSERT_TRUE(Run(At({{"steps", 10}})).ok());
  json changes = At({{"steps", 30}, {"auto_resume", true}});
  changes["checkpoint"]["exclude_from_loading"] = {"optimizer", "lr_scheduler"};
  auto runner = TorchRunner::Create(TestConfig(changes), Options());
  ASSERT_TRUE(runner.ok()) << runner.status();
  ASSERT_TRUE((*runner)->Restore().ok());
  EXPECT_EQ((*runner)->state().step, 10);
  EXPECT_TRUE((*runner)->optimizer().StateTensors().empty());
  RunnerConfig config;
  const auto refused = CheckRunnerConfig(
      json{{"steps", 1}, {"optim", {{"type", "sgd"}}}, {"checkpoint", {{"exclude_from_loading", "optimizr"}}}},
      &config);
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_THAT(refused[0].message, HasSubstr("found \"optimizr\"; allowed: model, ema, optimizer"));
}

TEST_F(Reporting, HeartbeatsTellOfRestartsAndEvaluations) {
  json changes = At({{"steps", 10}, {"auto_resume", true}, {"heartbeat", {{"enabled", true}}}});
  ASSERT_TRUE(Run(changes).ok());
  changes["steps"] = 12;
  ASSERT_TRUE(Run(changes).ok());
  const json beat = File("heartbeats/rank-00000.json");
  EXPECT_EQ(beat.at("restart_count"), 1);
  EXPECT_EQ(beat.at("global_step"), 12);
  EXPECT_EQ(beat.at("progress"), 1.0);
  EXPECT_EQ(beat.at("local_rank"), 0);
  EXPECT_EQ(beat.at("status"), "closed");
}

}  // namespace
}  // namespace athanor
