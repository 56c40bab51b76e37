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

}  // namespace
}  // namespace athanor
