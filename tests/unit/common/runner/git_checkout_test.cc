#include "athanor/runner/record/git_checkout.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "athanor/base/run_program.h"
#include "athanor/runner/record/workspace.h"
#include "gmock/gmock.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

using testing::HasSubstr;

class GitCheckoutTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!RunProgram({"git", "--version"}, {}).ok()) GTEST_SKIP() << "there is no git here";
    Git({"init", "-q", "-b", "main"});
    Write("a.txt", "one\n");
    Git({"add", "a.txt"});
    Git({"commit", "-q", "-m", "first"});
  }
  std::string Git(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"git", "-C", folder_.path(), "-c", "user.name=t", "-c", "user.email=t@t", "-c",
                                         "commit.gpgsign=false"});
    const auto output = RunProgram(arguments, {});
    EXPECT_TRUE(output.ok() && output->exit_code == 0) << arguments[9];
    return output->text;
  }
  void Write(const std::string& name, const std::string& text) { std::ofstream(folder_.path() + "/" + name) << text; }
  TestFolder folder_;
};

TEST_F(GitCheckoutTest, CommitAndDifference) {
  const GitCheckout clean = ReadGitCheckout(folder_.path());
  EXPECT_EQ(clean.commit + "\n", Git({"rev-parse", "HEAD"}));
  EXPECT_EQ(clean.diff, "");
  EXPECT_EQ(clean.code_id(), clean.commit.substr(0, 8));
  Write("b.txt", "not followed\n");
  EXPECT_EQ(ReadGitCheckout(folder_.path()).code_id(), clean.code_id());

  Write("a.txt", "two\n");
  const GitCheckout dirty = ReadGitCheckout(folder_.path());
  EXPECT_THAT(dirty.diff, HasSubstr("-one\n+two\n"));
  EXPECT_THAT(dirty.code_id(), testing::MatchesRegex(clean.code_id() + "-d[0-9a-f]{10}"));
  Git({"add", "a.txt"});
  EXPECT_EQ(ReadGitCheckout(folder_.path()).code_id(), dirty.code_id()) << "staged or not";
  Write("a.txt", "three\n");
  EXPECT_NE(ReadGitCheckout(folder_.path()).code_id(), dirty.code_id());

  // The user's settings change nothing: no prefix of their own, and no program of theirs is run.
  Git({"config", "diff.noprefix", "true"});
  Git({"config", "diff.external", "touch " + folder_.path() + "/ran;"});
  EXPECT_THAT(ReadGitCheckout(folder_.path()).diff, HasSubstr("--- a/a.txt"));
  EXPECT_FALSE(std::filesystem::exists(folder_.path() + "/ran"));
}

TEST_F(GitCheckoutTest, WorktreesAndPackedBranches) {
  const std::string commit = ReadGitCheckout(folder_.path()).commit;
  TestFolder other;
  Git({"worktree", "add", "-q", "-b", "side", other.path() + "/tree"});
  EXPECT_EQ(ReadGitCheckout(other.path() + "/tree").commit, commit);
  Git({"pack-refs", "--all"});
  EXPECT_EQ(ReadGitCheckout(folder_.path()).commit, commit);
  EXPECT_EQ(ReadGitCheckout(other.path() + "/tree").commit, commit);
  std::filesystem::create_directories(folder_.path() + "/deep/down");
  EXPECT_EQ(ReadGitCheckout(folder_.path() + "/deep/down").commit, commit);
}

TEST_F(GitCheckoutTest, TheDifferenceIsWrittenBesideTheConfiguration) {
  Write("a.txt", "two\n");
  TestFolder run;
  Workspace workspace;
  workspace.dir = run.path();
  workspace.code = ReadGitCheckout(folder_.path());
  ASSERT_TRUE(WriteMetadata(workspace, TestConfig()).ok());
  std::ifstream file(run.path() + "/metadata/git.diff");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_EQ(text, workspace.code.diff);
  workspace.code.diff.clear();
  ASSERT_TRUE(WriteMetadata(workspace, TestConfig()).ok());
  EXPECT_FALSE(std::filesystem::exists(run.path() + "/metadata/git.diff")) << "of an earlier start";
}

TEST(GitCheckout, OutsideOfACheckoutThereIsNothing) {
  TestFolder folder;
  const GitCheckout none = ReadGitCheckout(folder.path());
  EXPECT_EQ(none.commit + none.diff + none.code_id(), "");
}

}  // namespace
}  // namespace athanor
