#include "athanor/runner/torch_runner.h"

#include <cmath>
#include <filesystem>
#include <fstream>

#include "athanor/runner/step/step_agreement.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(TorchRunner, TrainsAndEvaluatesWithoutCheckpoints) {
  RunSpec spec;
  spec.samples = 1000;
  spec.config = TestConfig({{"steps", 400}, {"evaluate", {{"interval", 100}}}, {"optim", {{"lr", 0.05}}}});
  const auto runs = TrainAll(spec);
  ASSERT_TRUE(runs[0].result.ok()) << runs[0].result.status();
  const RunResult& result = *runs[0].result;
  EXPECT_EQ(result.outcome, RunOutcome::kFinished);
  EXPECT_EQ(result.step, 400);
  EXPECT_GT(result.metrics.at("val.accuracy"), 0.7);
  EXPECT_LT(result.metrics.at("train.loss"), 0.9);
  EXPECT_TRUE(result.best_score.has_value());
  EXPECT_GT(runs[0].reports.size(), 400u);
  EXPECT_EQ(runs[0].reports.back().phase, RunnerPhase::kFinishing);
}

TEST(TorchRunner, ResumesBitForBitAfterAnyStep) {
  // 100 samples in batches of 8: 13 to a pass, so 13 and 26 are ends of passes, the others in the middle. Windows of 2:
  // 7 updates a pass.
  for (int accum : {1, 2}) {
    const nlohmann::json changes = {
        {"accum_steps", accum}, {"max_grad_norm", 1.0}, {"ema", {{"enabled", true}}}, {"evaluate", {{"interval", 10}}}};
    RunSpec whole;
    whole.config = TestConfig(changes);
    const auto expected = TrainAll(whole);
    ASSERT_TRUE(expected[0].result.ok()) << expected[0].result.status();
    for (int64_t stop : {1, 6, 7, 10, 13, 14, 26, 29}) {
      TestFolder folder;
      RunSpec first = whole;
      first.root = folder.path();
      first.stop_at_step = stop - 1;  // the vote is heard at the next boundary
      const auto stopped = TrainAll(first);
      ASSERT_TRUE(stopped[0].result.ok()) << stopped[0].result.status();
      ASSERT_EQ(stopped[0].result->outcome, RunOutcome::kPreempted);
      ASSERT_EQ(stopped[0].result->step, stop);
      RunSpec second = whole;
      second.root = folder.path();
      second.candidates = {folder.At(stop)};
      const auto resumed = TrainAll(second);
      ASSERT_TRUE(resumed[0].result.ok()) << resumed[0].result.status();
      EXPECT_EQ(resumed[0].result->step, 30);
      EXPECT_EQ(resumed[0].reports.back().resumed_from_step, stop);
      EXPECT_EQ(resumed[0].result->best_score, expected[0].result->best_score);
      SCOPED_TRACE(testing::Message() << "accum " << accum << " stop " << stop);
      ExpectSameModel(resumed[0].model, expected[0].model);
    }
  }
}

TEST(TorchRunner, ResumesBitForBitOnTwoRanks) {
  RunSpec whole;
  whole.world_size = 2;
  whole.dropout = 0;  // threads share a generator
  whole.config = TestConfig({{"accum_steps", 2}});
  const auto expected = TrainAll(whole);
  ASSERT_TRUE(expected[0].result.ok()) << expected[0].result.status();
  for (int64_t stop : {3, 4, 11}) {
    TestFolder folder;
    RunSpec first = whole;
    first.root = folder.path();
    first.stop_at_step = stop - 1;
    first.stop_rank = 1;
    const auto stopped = TrainAll(first);
    for (const RankRun& run : stopped) {
      ASSERT_TRUE(run.result.ok()) << run.result.status();
      ASSERT_EQ(run.result->outcome, RunOutcome::kPreempted);
      ASSERT_EQ(run.result->step, stopped[0].result->step);
    }
    RunSpec second = whole;
    second.root = folder.path();
    second.candidates = {folder.At(stopped[0].result->step)};
    const auto resumed = TrainAll(second);
    for (int rank = 0; rank < 2; ++rank) {
      ASSERT_TRUE(resumed[rank].result.ok()) << resumed[rank].result.status();
      for (const auto& [name, tensor] : expected[0].model) {
        // Running statistics are each rank's own until rank 0's are spread.
        if (rank == 0 || name.find("running") == std::string::npos) {
          EXPECT_TRUE(torch::equal(tensor, resumed[rank].model.at(name))) << name << " stop " << stop;
        }
      }
    }
  }
}

TEST(TorchRunner, StopIsAgreedWithoutSharedMemory) {
  TestFolder folder;
  RunSpec spec;
  spec.world_size = 2;
  spec.shared_memory = false;
  spec.config = TestConfig({{"steps", 100000}});
  spec.root = folder.path();
  spec.stop_at_step = 40;
  spec.stop_rank = 1;
  const auto runs = TrainAll(spec);
  for (const RankRun& run : runs) {
    ASSERT_TRUE(run.result.ok()) << run.result.status();
    EXPECT_EQ(run.result->outcome, RunOutcome::kPreempted);
    EXPECT_EQ(run.result->step, runs[0].result->step);
    EXPECT_LE(run.result->step, 40 + 2 * StepAgreement::kMaxInterval);
  }
}

TEST(TorchRunner, NanLossOnOneRankEndsAllAlike) {
  TestFolder folder;
  RunSpec spec;
  spec.world_size = 2;
  spec.config = TestConfig({{"max_nonfinite_losses", 3}, {"checkpoint", {{"interval", 1}}}});
  spec.root = folder.path();
  spec.ledger = std::make_shared<SharedLedger>(2);
  auto calls = std::make_shared<std::atomic<int>>(0);
  spec.change_output = [calls](int rank, const Batch&, StepOutput* output) {
    if (rank == 1 && ++*calls > 5) output->loss = output->loss * std::nan("");
  };
  const auto runs = TrainAll(spec);
  for (const RankRun& run : runs) {
    EXPECT_EQ(FailureKindOf(run.result.status()), FailureKind::kNanLoss) << run.result.status();
    EXPECT_THAT(std::string(run.result.status().message()), HasSubstr("max_nonfinite_losses is 3"));
  }
  // What went bad was never saved.
  for (int64_t step : spec.ledger->committed()) EXPECT_LE(step, 5);
}

TEST(TorchRunner, SkipsUpdatesWithNonfiniteGradients) {
  RunSpec spec;
  spec.config = TestConfig({{"skip_nonfinite_grad", true}, {"max_nonfinite_losses", 100}});
  auto calls = std::make_shared<int>(0);
  spec.change_output = [calls](int, const Batch&, StepOutput* output) {
    if (++*calls == 4) output->loss = output->loss * INFINITY;
  };
  const auto runs = TrainAll(spec);
  ASSERT_TRUE(runs[0].result.ok()) << runs[0].result.status();
  EXPECT_EQ(runs[0].result->step, 30);
  EXPECT_EQ(runs[0].result->metrics.at("skipped_updates"), 1);
  EXPECT_EQ(runs[0].reports.back().nonfinite_losses, 1);
  for (const auto& [name, tensor] : runs[0].model) EXPECT_TRUE(torch::isfinite(tensor).all().item<bool>()) << name;
}

TEST(TorchRunner, UserExceptionsAreUserCode) {
  RunSpec spec;
  spec.change_output = [](int, const Batch&, StepOutput*) { throw std::runtime_error("shape of things to come"); };
  const auto runs = TrainAll(spec);
  EXPECT_EQ(FailureKindOf(runs[0].result.status()), FailureKind::kUserCode);
  EXPECT_THAT(std::string(runs[0].result.status().message()), HasSubstr("shape of things to come"));
  spec.change_output = [](int, const Batch&, StepOutput* output) { output->loss = torch::Tensor(); };
  EXPECT_THAT(std::string(TrainAll(spec)[0].result.status().message()), HasSubstr("no loss"));
}

TEST(TorchRunner, FailedLastEvaluationDoesNotDestroyTheTraining) {
  TestFolder folder;
  RunSpec spec;
  spec.root = folder.path();
  spec.ledger = std::make_shared<SharedLedger>(1);
  spec.change_output = [](int, const Batch&, StepOutput* output) {
    if (!output->loss.requires_grad()) throw std::runtime_error("evaluation broke");
  };
  spec.config = TestConfig({{"evaluate", {{"interval", 1000}}}});
  const auto runs = TrainAll(spec);
  ASSERT_TRUE(runs[0].result.ok()) << runs[0].result.status();
  EXPECT_THAT(runs[0].result->notes, testing::Contains(HasSubstr("evaluation broke")));
  EXPECT_EQ(spec.ledger->committed().back(), 30);
}

TEST(TorchRunner, EpochModeEvaluatesSavesAndStopsEarly) {
  TestFolder folder;
  RunSpec spec;
  spec.root = folder.path();
  spec.ledger = std::make_shared<SharedLedger>(1);
  spec.config =
      TestConfig({{"steps", nullptr}, {"epochs", 3}, {"checkpoint", {{"interval", 1}, {"async_enabled", false}}}});
  auto runs = TrainAll(spec);
  ASSERT_TRUE(runs[0].result.ok()) << runs[0].result.status();
  EXPECT_EQ(runs[0].result->step, 39);
  EXPECT_EQ(runs[0].result->epoch, 3);
  EXPECT_THAT(spec.ledger->committed(), ElementsAre(13, 26, 39));
  EXPECT_TRUE(spec.ledger->manifests()[0].is_best);
  EXPECT_GT(spec.ledger->manifests()[0].metrics.count("val.loss"), 0u);

  RunSpec early;
  early.config = TestConfig({{"steps", nullptr},
                             {"epochs", 50},
                             {"patience", 0},
                             {"optim", {{"lr", 0.0}}},
                             {"sched", {{"type", ""}}},
                             {"evaluate", {{"splits", {"val"}}}}});
  early.with_norm = false;
  runs = TrainAll(early);
  ASSERT_TRUE(runs[0].result.ok()) << runs[0].result.status();
  EXPECT_EQ(runs[0].result->epoch, 2);  // the second evaluation is no better
}

TEST(TorchRunner, WeightsOnlyStartsAtStepZero) {
  TestFolder folder;
  RunSpec parent;
  parent.root = folder.path();
  const auto trained = TrainAll(parent);
  ASSERT_TRUE(trained[0].result.ok()) << trained[0].result.status();
  RunSpec child;
  child.root = folder.path() + "/child";
  child.config = TestConfig({{"steps", 1}, {"optim", {{"lr", 0.0}, {"weight_decay", 0.0}}}, {"sched", {{"type", ""}}}});
  ResumeCandidate candidate = folder.At(30);
  candidate.weights_only = true;
  child.candidates = {candidate};
  const auto runs = TrainAll(child);
  ASSERT_TRUE(runs[0].result.ok()) << runs[0].result.status();
  EXPECT_EQ(runs[0].result->step, 1);
  EXPECT_TRUE(torch::equal(runs[0].model.at("first.weight"), trained[0].model.at("first.weight")));
}

// The only shard of a checkpoint of one rank.
std::filesystem::path OnlyShard(const ResumeCandidate& candidate) {
  std::vector<std::filesystem::path> shards;
  for (const auto& entry : std::filesystem::directory_iterator(candidate.path)) {
    if (entry.path().extension() == ".safetensors") shards.push_back(entry.path());
  }
  EXPECT_EQ(shards.size(), 1u) << candidate.path;
  return shards.at(0);
}

TEST(TorchRunner, DamagedCheckpointsArePassedOver) {
  TestFolder folder;
  RunSpec whole;
  whole.root = folder.path();
  // Every save is there: none is skipped because one before is still being written.
  whole.config = TestConfig({{"checkpoint", {{"interval", 5}, {"async_enabled", false}}}});
  const auto expected = TrainAll(whole);
  ASSERT_TRUE(expected[0].result.ok()) << expected[0].result.status();
  const auto truncated = OnlyShard(folder.At(20));
  std::filesystem::resize_file(truncated, std::filesystem::file_size(truncated) - 1);
  const auto flipped = OnlyShard(folder.At(15));
  const auto middle = static_cast<std::streamoff>(std::filesystem::file_size(flipped) / 2);
  std::fstream file(flipped, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(middle);
  const int byte = file.get();
  file.seekp(middle);
  file.put(static_cast<char>(byte ^ 4));
  file.close();
  RunSpec again = whole;
  again.ledger = std::make_shared<SharedLedger>(1);
  const ResumeCandidate missing = folder.At(23);
  again.candidates = {missing, folder.At(20), folder.At(15), folder.At(10)};
  const auto runs = TrainAll(again);
  ASSERT_TRUE(runs[0].result.ok()) << runs[0].result.status();
  EXPECT_EQ(runs[0].reports.back().resumed_from_step, 10);
  EXPECT_THAT(again.ledger->damaged(), ElementsAre(23, 20, 15));
  ExpectSameModel(runs[0].model, expected[0].model);
  again.candidates = {missing};
  EXPECT_EQ(FailureKindOf(TrainAll(again)[0].result.status()), FailureKind::kData);
}

// One shard of two is damaged: every rank reads all shards, and all go back to the checkpoint before.
TEST(TorchRunner, DamageIsAgreedOverRanks) {
  TestFolder folder;
  RunSpec whole;
  whole.world_size = 2;
  whole.dropout = 0;
  whole.root = folder.path();
  whole.config = TestConfig({{"checkpoint", {{"async_enabled", false}}}});
  for (const RankRun& run : TrainAll(whole)) ASSERT_TRUE(run.result.ok()) << run.result.status();
  int truncated = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.At(20).path)) {
    if (entry.path().filename().string().rfind("shard-00001-of-00002", 0) != 0) continue;
    std::filesystem::resize_file(entry.path(), std::filesystem::file_size(entry.path()) / 2);
    ++truncated;
  }
  ASSERT_EQ(truncated, 1);
  RunSpec again = whole;
  again.ledger = std::make_shared<SharedLedger>(2);
  again.candidates = {folder.At(20), folder.At(10)};
  for (const RankRun& run : TrainAll(again)) {
    ASSERT_TRUE(run.result.ok()) << run.result.status();
    EXPECT_EQ(run.reports.back().resumed_from_step, 10);
  }
  EXPECT_FALSE(again.ledger->damaged().empty());
}

TEST(TorchRunner, RefusesAnotherConfiguration) {
  TestFolder folder;
  RunSpec spec;
  spec.root = folder.path();
  spec.config = TestConfig({{"checkpoint", {{"async_enabled", false}}}});
  ASSERT_TRUE(TrainAll(spec)[0].result.ok());
  spec.candidates = {folder.At(10)};
  spec.config = TestConfig({{"optim", {{"lr", 0.5}}}, {"steps", 40}});
  const absl::Status status = TrainAll(spec)[0].result.status();
  EXPECT_EQ(FailureKindOf(status), FailureKind::kInvalid) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("optim.lr"));
}

TEST(TorchRunner, RefusesIncompleteOptions) {
  TorchRunnerOptions options;
  options.workspace_from_config = false;
  EXPECT_THAT(std::string(TorchRunner::Create(TestConfig(), options).status().message()), HasSubstr("no model"));
  options.model = std::make_shared<TestNet>();
  options.forward = [](const Batch&) { return StepOutput{}; };
  EXPECT_THAT(std::string(TorchRunner::Create(TestConfig(), options).status().message()), HasSubstr("'train'"));
  options.datasets = {{"train", TestData(10, 1)}};
  auto refused = TorchRunner::Create(TestConfig({{"evaluate", {{"splits", {"nope"}}}}}), options);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("no split 'nope'; the splits are: train"));
  EXPECT_EQ(FailureKindOf(refused.status()), FailureKind::kInvalid);
}

}  // namespace
}  // namespace athanor
