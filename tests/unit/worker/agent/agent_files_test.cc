// What an agent deletes of checkpoints, and what it makes of the files that a rank leaves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "athanor/base/storage_id.h"
#include "athanor/contract/exit_codes.h"
#include "worker/agent/checkpoint_files.h"
#include "worker/agent/exit_report.h"

namespace athanor::agent {
namespace {

class AgentFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/agent-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    root_ = folder_ + "/root";
    step_ = root_ + "/job-1/step-000000000010";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Fill() const {
    std::filesystem::create_directories(step_);
    std::ofstream(step_ + "/manifest.json") << "{}";
    std::ofstream(step_ + "/shard.safetensors") << "weights";
  }
  std::string folder_, root_, step_;
};

TEST_F(AgentFiles, ACheckpointIsRemovedAndNothingElse) {
  Fill();
  const std::string id = EnsureStorageId(root_).value();
  std::ofstream(root_ + "/job-1/metrics.jsonl") << "{}";
  EXPECT_TRUE(RemoveCheckpointFiles("job-1", step_, id).ok());
  EXPECT_FALSE(std::filesystem::exists(step_));
  EXPECT_TRUE(std::filesystem::exists(root_ + "/job-1/metrics.jsonl"));
  EXPECT_TRUE(RemoveCheckpointFiles("job-1", step_, id).ok()) << "gone already";
  std::filesystem::remove_all(root_ + "/job-1");
  EXPECT_TRUE(RemoveCheckpointFiles("job-1", step_, id).ok());
}

// Told "gone", the coordinator would forget a checkpoint whose files come back with the mount.
TEST_F(AgentFiles, WhatIsNotThereWithItsStorageIsNotGone) {
  Fill();
  const std::string id = EnsureStorageId(root_).value();
  std::filesystem::rename(root_, folder_ + "/away");
  EXPECT_TRUE(IsStorageUnavailable(RemoveCheckpointFiles("job-1", step_, id)));
  EXPECT_TRUE(IsStorageUnavailable(RemoveCheckpointFiles("job-1", step_, ""))) << "of before ids were kept";
  std::filesystem::create_directories(root_);  // an empty mount point
  EXPECT_TRUE(IsStorageUnavailable(RemoveCheckpointFiles("job-1", step_, id)));
  EnsureStorageId(root_).IgnoreError();  // another job has begun in it
  std::filesystem::create_directories(root_ + "/job-1");
  EXPECT_TRUE(IsStorageUnavailable(RemoveCheckpointFiles("job-1", step_, id)));
}

TEST_F(AgentFiles, AStorageThatIsAwayIsACauseOfItsOwn) {
  const auto cause = ExplainExit({.code = kExitStorage, .signal = 0}, root_ + "/none.json", root_ + "/log", 0);
  ASSERT_TRUE(cause.has_value());
  EXPECT_EQ(cause->kind(), v1::STORAGE);
  EXPECT_TRUE(cause->retryable());
}

}  // namespace
}  // namespace athanor::agent
