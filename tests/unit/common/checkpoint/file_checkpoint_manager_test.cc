// What becomes of a checkpoint's files when something fails on the way, and evaluations that are attached later.
#include "athanor/checkpoint/file_checkpoint_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <mutex>

#include "athanor/checkpoint/alias_files.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/checkpoint/local_committer.h"

namespace athanor {
namespace {

using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

// Answers votes and commits as it is told; holds votes while `held`.
class TestCommitter : public CheckpointCommitter {
 public:
  absl::StatusOr<std::vector<ShardInfo>> CommitShard(int64_t, const ShardInfo& shard) override {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(20), [this] { return !held; });
    if (!vote.ok()) return vote;
    return std::vector<ShardInfo>{shard};
  }
  absl::Status CommitManifest(const ManifestSummary& summary) override {
    const std::lock_guard lock(mutex_);
    commits.push_back(summary);
    return commit;
  }
  absl::Status ReportEvaluation(const EvaluationSummary& summary) override {
    const std::lock_guard lock(mutex_);
    evaluations.push_back(summary);
    return commit;
  }
  void Abandon(int64_t, const std::string&) override { ++abandoned; }
  void ReportDamage(int64_t, const std::string&) override {}
  bool OwnsRetention() const override { return owns_retention; }
  void LetGo() {
    const std::lock_guard lock(mutex_);
    held = false;
    changed_.notify_all();
  }

  absl::Status vote, commit;
  bool held = false, owns_retention = true;
  std::atomic<int> abandoned{0};
  std::vector<ManifestSummary> commits;
  std::vector<EvaluationSummary> evaluations;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

TrainingState SmallState() {
  TrainingState state;
  state.replicated["model.weight"] = torch::ones({4});
  state.meta = {{"config", nlohmann::json::object()}};
  return state;
}

class ManagerTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "athanor-manager-XXXXXX").string();
    root_ = mkdtemp(name.data());
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  std::unique_ptr<FileCheckpointManager> Make(CheckpointCommitter* committer, int rank = 0, int world_size = 1) {
    auto manager = FileCheckpointManager::Create({.root = root_, .rank = rank, .world_size = world_size}, committer);
    EXPECT_TRUE(manager.ok()) << manager.status();
    return *std::move(manager);
  }
  absl::Status Save(FileCheckpointManager& manager, int64_t step, std::vector<std::string> aliases = {"latest"}) {
    EXPECT_TRUE(manager.Save(SmallState(), {.step = step, .aliases = std::move(aliases), .must_wait = true}).ok());
    return manager.Wait(absl::Seconds(20));
  }
  std::string Folder(int64_t step) const { return root_ + "/" + CheckpointDirName(step); }
  absl::Status Readable(int64_t step) const { return ReadCheckpoint({step, Folder(step), false}, 0, 1).status(); }
  int Shards(int64_t step) const {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(Folder(step)))
      count += entry.path().extension() == ".safetensors" ? 1 : 0;
    return count;
  }
  std::string root_;
};

TEST_F(ManagerTest, ANameThatCannotBeWrittenCostsNothingButTheName) {
  std::filesystem::create_directories(root_ + "/latest.pointer/in-the-way");
  LocalCommitter committer(root_, 0, 1);
  auto manager = Make(&committer);
  EXPECT_TRUE(Save(*manager, 10, {"latest", "best"}).ok());
  EXPECT_TRUE(Readable(10).ok()) << Readable(10);
  const CheckpointStats stats = manager->stats();
  EXPECT_EQ(stats.saved, 1);
  EXPECT_EQ(stats.failed, 0);
  EXPECT_EQ(stats.unnamed, 1);
  EXPECT_THAT(stats.last_error, HasSubstr("step-000000000010 is saved: its name 'latest'"));
  EXPECT_THAT(ReadAliases(root_), UnorderedElementsAre(Pair("best", 10)));
}

TEST_F(ManagerTest, AnAnswerThatIsLostAfterTheCommitCostsNoFiles) {
  TestCommitter committer;
  committer.commit = absl::UnavailableError("the answer was lost");
  auto manager = Make(&committer);
  const absl::Status status = Save(*manager, 10);
  EXPECT_THAT(std::string(status.message()), HasSubstr("is whole on disk, but not known as committed"));
  EXPECT_TRUE(Readable(10).ok()) << Readable(10);
  EXPECT_EQ(committer.abandoned, 0);
  EXPECT_EQ(manager->stats().failed, 1);
}

// Rank 0 may have counted a vote whose answer was lost: only a refusal frees the shard.
TEST_F(ManagerTest, AShardWhoseVoteMayCountStays) {
  TestCommitter committer;
  auto manager = Make(&committer, /*rank=*/1, /*world_size=*/2);
  int64_t step = 0;
  for (const absl::Status& answer : {absl::DeadlineExceededError("lost"), absl::FailedPreconditionError("over")}) {
    committer.vote = answer;
    EXPECT_FALSE(Save(*manager, ++step).ok());
    EXPECT_EQ(Shards(step), 1) << answer;
  }
  committer.vote = absl::AbortedError("given up");
  EXPECT_FALSE(Save(*manager, ++step).ok());
  EXPECT_EQ(Shards(step), 0);
  committer.vote = absl::AlreadyExistsError("by an earlier generation");
  EXPECT_TRUE(Save(*manager, ++step).ok());
  EXPECT_EQ(Shards(step), 0);
}

TEST_F(ManagerTest, RankZeroRemovesWhatNoManifestNames) {
  TestCommitter committer;
  auto manager = Make(&committer);
  ASSERT_TRUE(Save(*manager, 10).ok());
  committer.vote = absl::DeadlineExceededError("rank 1 did not vote");
  EXPECT_FALSE(Save(*manager, 10).ok());
  EXPECT_EQ(Shards(10), 1);
  EXPECT_TRUE(Readable(10).ok()) << "the first save of this step is untouched";
  EXPECT_EQ(committer.abandoned, 1);
}

// Of rank 0 and rank 1, which votes first.
class PairCommitter : public TestCommitter {
 public:
  absl::StatusOr<std::vector<ShardInfo>> CommitShard(int64_t, const ShardInfo& shard) override {
    if (shard.rank == 1) other = shard;
    return shard.rank == 1 ? std::vector<ShardInfo>() : std::vector<ShardInfo>{shard, other};
  }
  ShardInfo other;
};

// As over a network file system whose client keeps a folder's listing for a while.
TEST_F(ManagerTest, AShardThatIsSeenLateIsWaitedFor) {
  PairCommitter committer;
  ASSERT_TRUE(Save(*Make(&committer, /*rank=*/1, /*world_size=*/2), 10).ok());
  const std::string shard = Folder(10) + "/" + committer.other.file, hidden = root_ + "/hidden";
  std::filesystem::rename(shard, hidden);
  CheckpointManagerOptions options{.root = root_, .rank = 0, .world_size = 2};
  std::atomic<int> waits{0};
  options.on_bytes = [&](const char* doing, int64_t) {
    if (std::string(doing) != "waiting for a shard of another rank") return;
    if (++waits == 2) std::filesystem::rename(hidden, shard);
  };
  auto manager = *FileCheckpointManager::Create(options, &committer);
  EXPECT_EQ(Save(*manager, 10), absl::OkStatus());
  EXPECT_EQ(waits, 2);
  for (const int rank : {0, 1}) EXPECT_TRUE(ReadCheckpoint({10, Folder(10), false}, rank, 2).ok());
}

TEST_F(ManagerTest, AnEvaluationIsAttachedAfterTheCommitThatItWaitsFor) {
  TestCommitter committer;
  committer.held = true;
  auto manager = Make(&committer);
  ASSERT_TRUE(manager->Save(SmallState(), {.step = 10}).ok());
  manager->ReportEvaluation({.step = 10, .metrics = {{"val.loss", 0.25}}, .is_best = true, .evaluated = true});
  EXPECT_TRUE(absl::IsDeadlineExceeded(manager->Wait(absl::ZeroDuration())));
  committer.LetGo();
  ASSERT_TRUE(manager->Wait(absl::Seconds(20)).ok());
  ASSERT_EQ(committer.commits.size(), 1u);
  EXPECT_TRUE(committer.commits[0].metrics.empty());
  ASSERT_EQ(committer.evaluations.size(), 1u);
  EXPECT_EQ(committer.evaluations[0].step, 10);
  EXPECT_TRUE(committer.evaluations[0].is_best);
  const auto manifest = ReadManifest(Folder(10));
  ASSERT_TRUE(manifest.ok());
  EXPECT_THAT(manifest->metrics, UnorderedElementsAre(Pair("val.loss", 0.25)));
  EXPECT_EQ(manifest->meta.at("evaluated"), true);
  // Of a save that has failed there is nothing to tell.
  committer.vote = absl::DeadlineExceededError("nobody came");
  EXPECT_FALSE(Save(*manager, 20).ok());
  manager->ReportEvaluation({.step = 20, .metrics = {{"val.loss", 0.2}}});
  manager->Wait(absl::Seconds(20)).IgnoreError();
  EXPECT_EQ(committer.commits.size(), 1u);
  EXPECT_EQ(committer.evaluations.size(), 1u);
  EXPECT_EQ(manager->stats().unnamed, 0);
}

}  // namespace
}  // namespace athanor
