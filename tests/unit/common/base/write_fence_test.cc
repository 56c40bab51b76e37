// A late writer of an older generation is refused; a folder that is away is no fence.
#include "athanor/base/write_fence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "athanor/base/file_system.h"

namespace athanor {
namespace {

using testing::HasSubstr;

class WriteFences : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "fence-" + testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    ASSERT_TRUE(EnsureDir(folder_).ok());
  }
  void TearDown() override {
    SetWriteFence(nullptr);
    std::filesystem::remove_all(folder_);
  }
  std::string folder_;
};

TEST_F(WriteFences, TheNewerGenerationTakesTheFolder) {
  std::string told;
  const WriteFence old(folder_, 3, [&](const absl::Status& why) { told = std::string(why.message()); });
  EXPECT_TRUE(old.Check().ok());
  EXPECT_TRUE(old.Check().ok());
  EXPECT_EQ(*NewestClaim(folder_), 3);
  const WriteFence peer(folder_, 3), newer(folder_, 4);
  EXPECT_TRUE(peer.Check().ok()) << "ranks of one generation share it";
  EXPECT_TRUE(newer.Check().ok());
  EXPECT_EQ(old.Check().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(told, HasSubstr("belongs to generation 4; this is generation 3"));
  EXPECT_EQ(old.Check().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(newer.Check().ok()) << "an older claim that comes late is taken back";
  const WriteFence late(folder_, 2);
  EXPECT_EQ(late.Check().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(*NewestClaim(folder_), 4);
}

TEST_F(WriteFences, AtomicFilesOfAnOlderGenerationAreNotNamed) {
  SetWriteFence(std::make_shared<WriteFence>(folder_, 1));
  const std::string path = folder_ + "/results.json";
  EXPECT_TRUE(WriteFileAtomically(path, "of 1").ok());
  absl::StatusOr<AtomicFile> frozen = AtomicFile::Create(path);  // and sleeps here
  ASSERT_TRUE(frozen.ok());
  ASSERT_TRUE(frozen->Append("late", 4).ok());
  EXPECT_TRUE(WriteFence(folder_, 2).Check().ok());
  EXPECT_EQ(frozen->Commit().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(*ReadFile(path, 100), "of 1");
  const std::string elsewhere = testing::TempDir() + "not-fenced";
  EXPECT_TRUE(WriteFileAtomically(elsewhere, "x").ok()) << "only what lies in the folder is fenced";
  RemoveFile(elsewhere);
}

TEST_F(WriteFences, AFolderThatIsAwayIsNotTakenOver) {
  const WriteFence fence(folder_, 5);
  ASSERT_TRUE(fence.Check().ok());
  std::filesystem::rename(folder_, folder_ + ".away");
  EXPECT_EQ(fence.Check().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(folder_)) << "nothing is made in a bare mount point";
  std::filesystem::rename(folder_ + ".away", folder_);
  EXPECT_TRUE(fence.Check().ok());
  std::filesystem::remove_all(folder_ + "/.fence");
  EXPECT_TRUE(fence.Check().ok()) << "claimed again";
  EXPECT_EQ(*NewestClaim(folder_), 5);
  EXPECT_EQ(*NewestClaim(folder_ + "/nothing"), 0);
}

}  // namespace
}  // namespace athanor
