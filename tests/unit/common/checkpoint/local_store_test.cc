#include "athanor/checkpoint/store/local_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <thread>

namespace athanor {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class LocalStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "athanor-store-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    store_ = LocalStore::At(folder_ + "/root");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string Text(const std::string& name) const {
    const absl::StatusOr<std::string> text = ReadAll(*store_, name, 100);
    return text.ok() ? *text : text.status().ToString();
  }
  std::vector<std::string> Listed(const std::string& folder) const {
    const auto names = store_->List(folder);
    EXPECT_TRUE(names.ok()) << names.status();
    return names.value_or(std::vector<std::string>());
  }

  std::string folder_;
  std::shared_ptr<CheckpointStore> store_;
};

TEST_F(LocalStoreTest, ListsFilesAndFoldersOfAFolder) {
  EXPECT_THAT(Listed(""), IsEmpty());
  EXPECT_THAT(Listed("step-1"), IsEmpty());
  ASSERT_TRUE(store_->Put("step-1/b", "x").ok());
  ASSERT_TRUE(store_->Put("step-1/a", "").ok());
  ASSERT_TRUE(store_->Put("latest.pointer", "step-1").ok());
  EXPECT_THAT(Listed(""), ElementsAre("latest.pointer", "step-1/"));
  EXPECT_THAT(Listed("step-1"), ElementsAre("a", "b"));
  EXPECT_THAT(Listed("step-1/"), ElementsAre("a", "b"));
}

TEST_F(LocalStoreTest, ReadsRangesAndNothingBeyondTheEnd) {
  ASSERT_TRUE(store_->Put("f", "0123456789").ok());
  const auto reader = store_->Open("f");
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->size(), 10);
  std::string part(4, '?');
  ASSERT_TRUE((*reader)->Read(3, 4, part.data()).ok());
  EXPECT_EQ(part, "3456");
  const absl::Status beyond = (*reader)->Read(8, 4, part.data());
  EXPECT_TRUE(absl::IsOutOfRange(beyond)) << beyond;
  EXPECT_THAT(std::string(beyond.message()), HasSubstr("f: ends at offset 10, before 12"));
  EXPECT_TRUE((*reader)->Read(10, 0, part.data()).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(ReadAll(*store_, "f", 9).status()));
}

TEST_F(LocalStoreTest, WhatIsNotThereIsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(store_->Open("f").status()));
  EXPECT_TRUE(absl::IsNotFound(store_->Size("f").status()));
  EXPECT_THAT(std::string(store_->Size("f").status().message()), HasSubstr(folder_ + "/root/f"));
  EXPECT_FALSE(*Exists(*store_, "f"));
  EXPECT_TRUE(store_->Delete("f").ok());
  EXPECT_TRUE(store_->Delete("f/").ok());
  ASSERT_TRUE(store_->Put("f", "x").ok());
  EXPECT_TRUE(*Exists(*store_, "f"));
}

TEST_F(LocalStoreTest, AReaderKeepsWhatItOpened) {
  ASSERT_TRUE(store_->Put("f", "old").ok());
  const auto reader = store_->Open("f");
  ASSERT_TRUE(reader.ok());
  ASSERT_TRUE(store_->Put("f", "new one").ok());
  std::string text(3, '?');
  ASSERT_TRUE((*reader)->Read(0, 3, text.data()).ok());
  EXPECT_EQ(text, "old");
  EXPECT_EQ(Text("f"), "new one");
}

TEST_F(LocalStoreTest, OfManyWhoPutOnlyIfAbsentOneWins) {
  std::atomic<int> won{0}, taken{0};
  std::vector<std::thread> writers;
  for (int i = 0; i < 8; ++i) {
    writers.emplace_back([&, i] {
      const absl::Status put = store_->Put("claim", std::to_string(i), PutMode::kOnlyIfAbsent);
      won += put.ok() ? 1 : 0;
      taken += absl::IsAlreadyExists(put) ? 1 : 0;
    });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(won, 1);
  EXPECT_EQ(taken, 7);
  const std::string winner = Text("claim");
  EXPECT_TRUE(absl::IsAlreadyExists(store_->Put("claim", "late", PutMode::kOnlyIfAbsent)));
  EXPECT_EQ(Text("claim"), winner);
  EXPECT_THAT(Listed(""), ElementsAre("claim"));  // nothing is left of the others
}

TEST_F(LocalStoreTest, AWriterThatIsGivenUpLeavesNothing) {
  {
    const auto writer = store_->NewWriter("step-1/shard");
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Append("half", 4).ok());
    ASSERT_TRUE((*writer)->Sync().ok());
  }
  EXPECT_THAT(Listed("step-1"), IsEmpty());
  const auto writer = store_->NewWriter("step-1/shard");
  ASSERT_TRUE((*writer)->Append("who", 3).ok());
  ASSERT_TRUE((*writer)->Append("le", 2).ok());
  EXPECT_THAT(Listed("step-1"), IsEmpty());
  ASSERT_TRUE((*writer)->Commit().ok());
  EXPECT_EQ(Text("step-1/shard"), "whole");
}

TEST_F(LocalStoreTest, CopiesAndDeletes) {
  ASSERT_TRUE(store_->Put("step-1/f", "x").ok());
  ASSERT_TRUE(store_->Copy("step-1/f", "damaged/step-1/f").ok());
  ASSERT_TRUE(store_->Copy("step-1/f", "damaged/step-1/f").ok());
  EXPECT_TRUE(absl::IsNotFound(store_->Copy("nothing", "copy")));
  ASSERT_TRUE(store_->Delete("step-1/").ok());
  EXPECT_EQ(Text("damaged/step-1/f"), "x");
  EXPECT_THAT(Listed(""), ElementsAre("damaged/"));
}

}  // namespace
}  // namespace athanor
