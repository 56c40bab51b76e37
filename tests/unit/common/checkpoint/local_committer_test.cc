// Votes through files, beside what a killed attempt has left.
#include "athanor/checkpoint/local_committer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "athanor/base/file_system.h"
#include "athanor/checkpoint/format/layout.h"

namespace athanor {
namespace {

constexpr int64_t kStep = 10;

class LocalVotes : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "athanor-votes-XXXXXX").string();
    root_ = mkdtemp(name.data());
    std::filesystem::create_directories(Folder());
    for (const char* file : {"old", "new"}) EXPECT_TRUE(WriteFileAtomically(Folder() + "/" + file, "12345678").ok());
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  std::string Folder() const { return root_ + "/" + CheckpointDirName(kStep); }
  LocalCommitter Rank(int rank, const std::string& attempt, int world_size = 2) const {
    return LocalCommitter(root_, rank, world_size, absl::ZeroDuration(), attempt);
  }
  static ShardInfo Shard(int rank, const std::string& file, int64_t save = 1) {
    return {.rank = rank, .file = file, .bytes = 8, .crc32c = 7, .save = save};
  }
  int VotesLeft() const {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(Folder()))
      count += entry.path().filename().string().compare(0, 5, "vote-") == 0 ? 1 : 0;
    return count;
  }
  std::string root_;
};

TEST_F(LocalVotes, AKilledAttemptsVoteIsNeverCounted) {
  ASSERT_TRUE(Rank(1, "first").CommitShard(kStep, Shard(1, "old")).ok());
  LocalCommitter zero = Rank(0, "second"), one = Rank(1, "second");
  EXPECT_TRUE(absl::IsDeadlineExceeded(zero.CommitShard(kStep, Shard(0, "new")).status()));
  ASSERT_TRUE(one.CommitShard(kStep, Shard(1, "new")).ok());
  const auto shards = zero.CommitShard(kStep, Shard(0, "new"));
  ASSERT_TRUE(shards.ok()) << shards.status();
  ASSERT_EQ(shards->size(), 2u);
  EXPECT_EQ((*shards)[1].file, "new");
  EXPECT_EQ(VotesLeft(), 2);
  ASSERT_TRUE(zero.CommitManifest({.step = kStep}).ok());
  EXPECT_EQ(VotesLeft(), 0);
}

TEST_F(LocalVotes, AttemptsThatNobodyNamesAreToldApartToo) {
  LocalCommitter first_zero = Rank(0, ""), first_one = Rank(1, "");
  ASSERT_TRUE(first_one.CommitShard(kStep, Shard(1, "old")).ok());
  EXPECT_TRUE(first_zero.CommitShard(kStep, Shard(0, "old")).ok());
  LocalCommitter zero = Rank(0, ""), one = Rank(1, "");
  EXPECT_TRUE(absl::IsDeadlineExceeded(zero.CommitShard(kStep, Shard(0, "new")).status()));
  ASSERT_TRUE(one.CommitShard(kStep, Shard(1, "new")).ok());
  EXPECT_TRUE(zero.CommitShard(kStep, Shard(0, "new")).ok());
}

TEST_F(LocalVotes, AVoteIsForOneNumberOfRanksAndOneSave) {
  ASSERT_TRUE(Rank(1, "same", /*world_size=*/3).CommitShard(kStep, Shard(1, "old")).ok());
  ASSERT_TRUE(Rank(1, "same").CommitShard(kStep, Shard(1, "old", /*save=*/1)).ok());
  LocalCommitter zero = Rank(0, "same");
  EXPECT_TRUE(absl::IsDeadlineExceeded(zero.CommitShard(kStep, Shard(0, "new", /*save=*/2)).status()));
  EXPECT_TRUE(zero.CommitShard(kStep, Shard(0, "old", /*save=*/1)).ok());
}

TEST_F(LocalVotes, ARankThatGivesUpTakesItsVoteBack) {
  LocalCommitter zero = Rank(0, "same"), one = Rank(1, "same");
  ASSERT_TRUE(one.CommitShard(kStep, Shard(1, "new")).ok());
  one.Abandon(kStep, "disk full");
  EXPECT_TRUE(absl::IsDeadlineExceeded(zero.CommitShard(kStep, Shard(0, "new")).status()));
}

}  // namespace
}  // namespace athanor
