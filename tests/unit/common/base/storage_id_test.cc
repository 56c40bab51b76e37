#include "athanor/base/storage_id.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>
#include <vector>

namespace athanor {
namespace {

using ::testing::HasSubstr;

class StorageIdTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/storage-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string folder_;
};

TEST_F(StorageIdTest, IsMadeOnceAndReadBack) {
  const std::string root = folder_ + "/a/b";
  EXPECT_TRUE(absl::IsNotFound(ReadStorageId(root).status()));
  const auto made = EnsureStorageId(root);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(*EnsureStorageId(root), *made);
  EXPECT_EQ(*ReadStorageId(root), *made);
  EXPECT_TRUE(CheckStorage(root, *made).ok());
  EXPECT_TRUE(CheckStorage(root, "").ok());
}

TEST_F(StorageIdTest, ManyAtOnceGetOneIdAndLeaveNothing) {
  std::vector<std::string> ids(16);
  std::vector<std::thread> threads;
  for (std::string& id : ids) threads.emplace_back([&id, this] { id = EnsureStorageId(folder_).value_or("failed"); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), 1u) << ids[0];
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(StorageIdTest, AStorageThatIsAwayOrAnotherOneIsUnavailable) {
  const absl::Status away = CheckStorage(folder_ + "/away", "");
  EXPECT_TRUE(IsStorageUnavailable(away));
  EXPECT_THAT(std::string(away.message()), HasSubstr("is it mounted?"));
  const std::string id = EnsureStorageId(folder_).value();
  const absl::Status other = CheckStorage(folder_, std::string(32, '0'));
  EXPECT_TRUE(IsStorageUnavailable(other));
  EXPECT_THAT(std::string(other.message()), HasSubstr(id));
  EXPECT_FALSE(IsStorageUnavailable(absl::UnavailableError("another one")));
}

TEST_F(StorageIdTest, AFileThatIsNoIdIsNamed) {
  std::ofstream(folder_ + "/" + kStorageIdFile) << "hello";
  EXPECT_TRUE(absl::IsDataLoss(ReadStorageId(folder_).status()));
  EXPECT_TRUE(absl::IsDataLoss(EnsureStorageId(folder_).status()));
}

}  // namespace
}  // namespace athanor
