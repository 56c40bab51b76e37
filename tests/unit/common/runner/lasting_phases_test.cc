// A storage that is away is told from damage, and phases that take long from hangs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>

#include "athanor/base/storage_id.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/runner/state/run_checkpoints.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<TrainingState> State() {
  TrainingState state;
  state.replicated["model.weight"] = torch::arange(64);
  state.meta = {{"config", ToJson(TestConfig())}};
  return state;
}

class Storage : public ::testing::Test {
 protected:
  Storage() : committer_(&ledger_) {
    std::filesystem::create_directories(root());
    id_ = EnsureStorageId(root()).value();
  }
  std::string root() const { return folder_.path() + "/mount"; }
  std::string job() const { return root() + "/job-1"; }
  ResumeCandidate At(int64_t step) const {
    ResumeCandidate candidate = folder_.At(step);
    candidate.path = job() + candidate.path.substr(folder_.path().size());
    candidate.storage = id_;
    return candidate;
  }
  std::unique_ptr<RunCheckpoints> Open(std::vector<ResumeCandidate> candidates = {}) {
    RunCheckpointsOptions options;
    options.root = job();
    options.committer = &committer_;
    options.candidates = std::move(candidates);
    options.storage_root = root();
    options.storage = id_;
    options.on_bytes = [this](const char*, int64_t units) { units_ += units; };
    return RunCheckpoints::Create(TestConfig(), options).value();
  }
  void Save(const std::vector<int64_t>& steps) {
    const auto checkpoints = Open();
    for (const int64_t step : steps) {
      SaveRequest request;
      request.step = step;
      const SaveDecision forced = checkpoints->Decide({.force = true, .must_wait = true}, {.step = step});
      ASSERT_TRUE(checkpoints->Save(forced, State, request).ok());
      ASSERT_TRUE(checkpoints->Drain().ok());
    }
  }
  TestFolder folder_;
  SharedLedger ledger_{1};
  LedgerCommitter committer_;
  std::string id_;
  std::atomic<int64_t> units_{0};
};

TEST_F(Storage, ThatIsAwayIsNoDamage) {
  Save({10, 20});
  std::filesystem::rename(root(), folder_.path() + "/away");
  for (const bool mount_point : {false, true}) {
    if (mount_point) std::filesystem::create_directories(root());
    const auto restored = Open({At(20), At(10)})->Restore();
    EXPECT_TRUE(IsStorageUnavailable(restored.status())) << restored.status();
    EXPECT_THAT(std::string(restored.status().message()), HasSubstr("is it mounted?"));
    EXPECT_TRUE(ledger_.damaged().empty());
    EXPECT_FALSE(std::filesystem::exists(job())) << "nothing is made in an empty mount point";
  }
  ASSERT_TRUE(EnsureStorageId(root()).ok());  // another job has begun there
  EXPECT_TRUE(IsStorageUnavailable(Open({At(20)})->Restore().status()));
  std::filesystem::remove_all(root());
  std::filesystem::rename(folder_.path() + "/away", root());
  const auto back = Open({At(20), At(10)})->Restore();
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ((*back)->candidate.step, 20);
}

TEST_F(Storage, ThatIsThereWithoutTheFilesIsDamageAndTheOneBeforeIsTaken) {
  Save({10, 20});
  std::filesystem::remove_all(At(20).path);
  const auto restored = Open({At(20), At(10)})->Restore();
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ((*restored)->candidate.step, 10);
  EXPECT_EQ(ledger_.damaged(), std::vector<int64_t>{20});
}

TEST_F(Storage, DamagedFilesAreKeptWhenTheirStepIsSavedAgain) {
  Save({10, 20});
  const auto shard_of = [](const std::filesystem::path& folder) {
    for (const auto& file : std::filesystem::directory_iterator(folder)) {
      if (file.path().extension() == ".safetensors") return file.path();
    }
    return std::filesystem::path();
  };
  const std::filesystem::path shard = shard_of(At(20).path);
  std::filesystem::resize_file(shard, 100);
  const auto restored = Open({At(20), At(10)})->Restore();
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ((*restored)->candidate.step, 10);
  Save({20});
  EXPECT_TRUE(ReadCheckpoint(At(20), 0, 1).ok());
  const std::filesystem::path kept = job() + "/damaged" + At(20).path.substr(job().size());
  EXPECT_EQ(shard_of(kept).filename(), shard.filename());
  EXPECT_EQ(std::filesystem::file_size(shard_of(kept)), 100u);
}

TEST_F(Storage, OfBeforeIdsWereKeptIsToldByTheJobsFolder) {
  Save({10, 20});
  ResumeCandidate newest = At(20), older = At(10);
  newest.storage = older.storage = "";
  std::filesystem::remove(root() + "/" + kStorageIdFile);
  std::filesystem::remove_all(newest.path);
  const auto restored = Open({newest, older})->Restore();
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ((*restored)->candidate.step, 10);
  std::filesystem::remove_all(job());
  EXPECT_TRUE(IsStorageUnavailable(ReadCheckpoint(older, 0, 1).status()));
}

TEST_F(Storage, ACheckpointThatWasMovedIsReadWhereItIs) {
  Save({10});
  ResumeCandidate moved = At(10);
  moved.storage = std::string(32, '0');
  EXPECT_TRUE(ReadCheckpoint(moved, 0, 1).ok());
}

TEST_F(Storage, NothingIsWrittenIntoAnother) {
  const auto checkpoints = Open();
  std::filesystem::rename(root(), folder_.path() + "/away");
  std::filesystem::create_directories(root());
  SaveRequest request;
  request.step = 10;
  const SaveDecision forced = checkpoints->Decide({.force = true, .must_wait = true}, {.step = request.step});
  ASSERT_TRUE(checkpoints->Save(forced, State, request).ok()) << "training goes on";
  EXPECT_TRUE(IsStorageUnavailable(checkpoints->Drain()));
  EXPECT_EQ(checkpoints->stats().failed, 1);
  EXPECT_THAT(checkpoints->stats().last_error, HasSubstr("is it mounted?"));
  EXPECT_TRUE(std::filesystem::is_empty(root()));
}

TEST_F(Storage, BytesWrittenAndReadAreProgress) {
  Save({10});
  const int64_t written = units_.exchange(0);
  EXPECT_GE(written, 64 * 8);
  ASSERT_TRUE(Open({At(10)})->Restore().ok());
  EXPECT_GE(units_, 64 * 8);
}

class PhaseHooks : public RunnerHooks {
 public:
  void OnProgress(const ProgressReport& progress) override {
    if (progress.phase == RunnerPhase::kEvaluating) evaluating = done;
    if (progress.phase != RunnerPhase::kEvaluating && evaluating >= 0) {
      in_evaluation += done - evaluating;
      evaluating = -1;
    }
  }
  void OnPhaseProgress(const PhaseProgress& progress) override {
    int64_t now = done;
    while (now < progress.done && !done.compare_exchange_weak(now, progress.done)) {
    }
    exchanges = progress.exchanges;
  }
  std::atomic<int64_t> done{0}, exchanges{0};
  int64_t evaluating = -1, in_evaluation = 0;
};

// Batches of an evaluation advance a run as steps do.
TEST(PhaseProgress, GrowsWithEveryBatchOfAnEvaluation) {
  auto net = std::make_shared<TestNet>();
  PhaseHooks hooks;
  TorchRunnerOptions options;
  options.model = net;
  options.datasets = {{"train", TestData(40, 1)}, {"val", TestData(80, 2)}};
  options.forward = [net](const Batch& batch) {
    return StepOutput{torch::nn::functional::cross_entropy(net->forward(batch.input), batch.target), {}};
  };
  options.hooks = &hooks;
  options.workspace_from_config = false;
  auto runner = TorchRunner::Create(TestConfig({{"steps", 10}, {"evaluate", {{"interval", 5}}}}), std::move(options));
  ASSERT_TRUE(runner.ok()) << runner.status();
  ASSERT_TRUE((*runner)->Train().ok());
  EXPECT_EQ(hooks.in_evaluation, 2 * 10) << "two evaluations of ten batches";
  EXPECT_EQ((*runner)->progress().phase_progress.done, hooks.done);
  EXPECT_GT(hooks.exchanges, 0);
}

}  // namespace
}  // namespace athanor
