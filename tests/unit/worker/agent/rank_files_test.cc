// The agent's files: logs and their cap, old job folders, what an end is reported as.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "athanor/contract/exit_codes.h"
#include "worker/agent/exit_report.h"
#include "worker/agent/job_folders.h"
#include "worker/agent/log_files.h"

namespace athanor::agent {
namespace {

namespace fs = std::filesystem;

class RankFilesTest : public testing::Test {
 protected:
  RankFilesTest() : folder_(fs::path(testing::TempDir()) / absl::StrCat("rank-files-", getpid())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~RankFilesTest() override { fs::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& text) const {
    const fs::path path = folder_ / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
    return path.string();
  }

  const fs::path folder_;
};

// All of a log, as `job logs` asks for it.
std::string ReadAll(const LogFiles& logs, const RankKey& key) {
  std::string text;
  v1::ReadLog request;
  *request.mutable_id() = IdOf(key);
  while (true) {
    const v1::LogData data = logs.Read(request, /*ended=*/true);
    EXPECT_EQ(data.error(), "");
    text += data.data();
    if (data.end() || !data.error().empty()) return text;
    request.set_offset(data.next_offset());
  }
}

TEST_F(RankFilesTest, ACappedLogIsReadAlikeByAnyAgent) {
  constexpr LogLimits kLimits{.cap = 256 << 10, .head = 64 << 10, .tail = 128 << 10, .block = 64 << 10};
  const RankKey key{"job", 1, 0};
  const LogFiles logs(folder_.string(), kLimits);
  std::string text;
  for (int line = 0; text.size() < (1 << 20); ++line) absl::StrAppend(&text, "line ", line, "\n");
  Write("jobs/job/gen-0001/rank-00000.log", text);
  EXPECT_EQ(ReadAll(logs, key), text);
  const absl::Status cut = logs.EnforceCap(logs.LogPath(key));
  if (absl::IsUnimplemented(cut)) GTEST_SKIP() << cut;
  ASSERT_TRUE(cut.ok()) << cut;
  struct stat info = {};
  ASSERT_EQ(stat(logs.LogPath(key).c_str(), &info), 0);
  EXPECT_LE(info.st_blocks * 512, kLimits.cap);
  const std::string shown = ReadAll(logs, key);
  EXPECT_EQ(std::count(shown.begin(), shown.end(), '\0'), 0);
  EXPECT_EQ(shown.substr(0, 64 << 10), text.substr(0, 64 << 10));
  EXPECT_NE(shown.find(" bytes were dropped: the log is longer than 262144 bytes]"), std::string::npos);
  EXPECT_EQ(shown.substr(shown.size() - (128 << 10)), text.substr(text.size() - (128 << 10)));
  // The agent that is started next knows nothing but the file.
  EXPECT_EQ(ReadAll(LogFiles(folder_.string(), kLimits), key), shown);
}

TEST_F(RankFilesTest, TheTailOfALogKeepsWholeCharactersAndNothingThatSteersATerminal) {
  const std::string log = Write("log",
                                "/data/日本/größe.csv \x1b[31m \xff\xc2\x9b"
                                "31m end\r  5%\r 10%\n");
  EXPECT_EQ(LogTail(log), "/data/日本/größe.csv ?[31m \xef\xbf\xbd?31m end\n  5%\n 10%\n");
  std::string cut;
  for (int i = 0; i < 100; ++i) cut += "€";
  EXPECT_EQ(LogTail(Write("cut", cut), 10).find("€"), size_t{3});  // the cut character's last byte shows as U+FFFD
}

TEST_F(RankFilesTest, AReasonKeepsItsCharacters) {
  const std::string failure =
      Write("failure.json", R"({"kind": "data", "detail": "/data/größe.csv: cannot be opened"})");
  const auto cause = ExplainExit({.code = kExitData}, failure, "/nowhere", 0);
  ASSERT_TRUE(cause.has_value());
  EXPECT_EQ(cause->detail(), "/data/größe.csv: cannot be opened");
}

TEST_F(RankFilesTest, ACrashIsReportedWithItsPlace) {
  const std::string failure =
      Write("failure.json", R"({"kind": "signal", "detail": "SIGSEGV at address 0x10 in thread main: Foo() < main"})");
  const auto cause = ExplainExit({.signal = SIGSEGV}, failure, "/nowhere", 0);
  ASSERT_TRUE(cause.has_value());
  EXPECT_EQ(cause->kind(), v1::SIGNAL);
  EXPECT_EQ(cause->detail(),
            "killed by signal 11 (Segmentation fault): SIGSEGV at address 0x10 in thread main: Foo() < main");
}

JobFolder Folder(const std::string& job, absl::Duration age, absl::Time now, int64_t bytes = 10) {
  return {.job = job, .written = now - age, .bytes = bytes};
}

TEST(FoldersToRemoveTest, AgeCountAndBytesEachTakeTheOldestAndNeverTheLive) {
  const absl::Time now = absl::Now();
  const std::vector<JobFolder> folders = {Folder("young", absl::Minutes(5), now), Folder("day", absl::Hours(24), now),
                                          Folder("week", absl::Hours(168), now), Folder("old", absl::Hours(1000), now),
                                          Folder("live", absl::Hours(2000), now)};
  const std::set<std::string> live = {"live"};
  EXPECT_EQ(FoldersToRemove(folders, live, {}, now), (std::vector<std::string>{"old"}));
  EXPECT_EQ(FoldersToRemove(folders, live, {.jobs = 3}, now), (std::vector<std::string>{"old", "week"}));
  EXPECT_EQ(FoldersToRemove(folders, live, {.bytes = 29}, now), (std::vector<std::string>{"old", "week", "day"}));
  // Less than what must stay takes: the rest goes, and no more.
  EXPECT_EQ(FoldersToRemove(folders, live, {.jobs = 1}, now), (std::vector<std::string>{"old", "week", "day"}));
  EXPECT_EQ(FoldersToRemove(folders, live, {.age = absl::Hours(9999)}, now), (std::vector<std::string>{}));
}

TEST_F(RankFilesTest, OldFoldersGoWholeAndLinksAreNotFollowed) {
  const LogFiles logs(folder_.string());
  Write("elsewhere/kept", "x");
  for (const char* job : {"old", "live", "new"}) Write(absl::StrCat("jobs/", job, "/gen-0001/rank-00000.log"), "x\n");
  fs::create_directory_symlink(folder_ / "elsewhere", folder_ / "jobs/link");
  fs::create_directory_symlink(folder_ / "elsewhere", folder_ / "jobs/old/link");
  const timespec then[2] = {{1000, 0}, {1000, 0}};
  for (const char* job : {"old", "live"}) {
    for (const char* part : {"/gen-0001/rank-00000.log", "/gen-0001", "/link"})
      utimensat(AT_FDCWD, (folder_ / "jobs" / job).concat(part).c_str(), then, AT_SYMLINK_NOFOLLOW);
  }
  const SweepResult swept = RemoveOldJobFolders(logs, {"live"}, {});
  EXPECT_EQ(swept.removed, (std::vector<std::string>{"old"}));
  EXPECT_TRUE(swept.errors.empty());
  EXPECT_FALSE(fs::exists(folder_ / "jobs/old"));
  EXPECT_TRUE(fs::exists(folder_ / "jobs/live/gen-0001/rank-00000.log"));
  EXPECT_TRUE(fs::exists(folder_ / "jobs/new/gen-0001/rank-00000.log"));
  EXPECT_TRUE(fs::exists(folder_ / "elsewhere/kept"));
}

}  // namespace
}  // namespace athanor::agent
