#include "athanor/runner/state/run_checkpoints.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

// A coordinator that is away until Return().
class AwayCommitter : public CheckpointCommitter {
 public:
  absl::StatusOr<std::vector<ShardInfo>> CommitShard(int64_t, const ShardInfo& shard) override {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(60), [this] { return back_; }))
      return absl::DeadlineExceededError("nobody came back");
    return std::vector<ShardInfo>{shard};
  }
  absl::Status CommitManifest(const ManifestSummary&) override { return absl::OkStatus(); }
  absl::Status ReportEvaluation(const EvaluationSummary&) override { return absl::OkStatus(); }
  void Abandon(int64_t, const std::string&) override {}
  void ReportDamage(int64_t, const std::string&) override {}
  bool OwnsRetention() const override { return true; }
  void Return() {
    std::lock_guard lock(mutex_);
    back_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool back_ = false;
};

absl::StatusOr<TrainingState> SmallState() {
  TrainingState state;
  state.replicated["model.weight"] = torch::ones({4});
  state.meta = {{"config", nlohmann::json::object()}};
  return state;
}

TEST(RunCheckpoints, CommitsThatWaitForTheCoordinatorDoNotHoldTrainingUp) {
  TestFolder folder;
  AwayCommitter committer;
  RunCheckpointsOptions options;
  options.root = folder.path();
  options.committer = &committer;
  auto checkpoints = RunCheckpoints::Create(TestConfig({{"steps", 100}}), options);
  ASSERT_TRUE(checkpoints.ok()) << checkpoints.status();
  // Best ones wait for a write, never for a commit: every save returns though nothing can be committed.
  const int64_t saves = FileCheckpointManager::kMaxPendingCommits + 3;
  for (int64_t step = 1; step <= saves; ++step) {
    SaveRequest request;
    request.step = step;
    request.is_best = true;
    const SaveDecision decision = (*checkpoints)->Decide({}, {.step = step, .is_best = true});
    EXPECT_EQ(decision.action, SaveDecision::Action::kSave);
    ASSERT_TRUE((*checkpoints)->Save(decision, SmallState, request).ok());
  }
  EXPECT_EQ((*checkpoints)->stats().saved, 0);
  EXPECT_EQ((*checkpoints)->stats().skipped, 3);
  EXPECT_EQ((*checkpoints)->last_step(), saves - 3);
  committer.Return();
  ASSERT_TRUE((*checkpoints)->Drain().ok());
  EXPECT_EQ((*checkpoints)->stats().saved, saves - 3);
  EXPECT_EQ((*checkpoints)->stats().failed, 0);
  EXPECT_EQ((*checkpoints)->stats().last_committed_step, saves - 3);
}

}  // namespace
}  // namespace athanor
