#include "athanor/base/file_system.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

namespace athanor {
namespace {

TEST(FileSystemTest, LeftoversOfAKilledWriterGoAndNothingElse) {
  std::string folder = testing::TempDir() + "/athanor-leftovers-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/results.json";
  for (const char* name : {"results.json", "results.json.15790-53.tmp", "results.json.7-0.tmp", "results.json.tmp",
                           "results.json.old.tmp", "latest.json.15790-54.tmp", "results.json.1-2.bak"})
    std::ofstream(folder + "/" + name) << "x";
  RemoveLeftovers(path);
  std::set<std::string> left;
  for (const auto& file : std::filesystem::directory_iterator(folder)) left.insert(file.path().filename().string());
  EXPECT_THAT(left, testing::UnorderedElementsAre("results.json", "results.json.tmp", "results.json.old.tmp",
                                                  "latest.json.15790-54.tmp", "results.json.1-2.bak"));
  RemoveLeftovers(folder + "/absent/results.json");
  EXPECT_TRUE(WriteFileAtomically(path, "y").ok());
  std::filesystem::remove_all(folder);
}

// A bare name lies in the working folder.
TEST(FileSystemTest, FilesWithoutAFolderAreWrittenHere) {
  std::string folder = testing::TempDir() + "/athanor-bare-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder);
  EXPECT_TRUE(EnsureDir("").ok()) << "the folder of a bare name is there";
  for (int round = 0; round < 2; ++round) {
    const absl::Status written = WriteFileAtomically("weights.safetensors", "x");
    EXPECT_TRUE(written.ok()) << written;
  }
  std::ofstream("weights.safetensors.1-2.tmp") << "x";
  RemoveLeftovers("weights.safetensors");
  EXPECT_TRUE(std::filesystem::exists("weights.safetensors"));
  EXPECT_FALSE(std::filesystem::exists("weights.safetensors.1-2.tmp"));
  std::filesystem::current_path(before);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace athanor
