// The agent's processes: whose they are, what they are given, and that nothing of a rank outlives it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "athanor/contract/rank_environment.h"
#include "worker/agent/process_tree.h"
#include "worker/agent/rank_environment.h"
#include "worker/agent/rank_processes.h"

namespace athanor::agent {
namespace {

namespace fs = std::filesystem;

TEST(ProcessStatTest, ANameMayHoldAnything) {
  const auto process =
      ParseStat("42 (a) b (c) S 7 42 41 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 123456 9 10 11 12 13 14 15");
  ASSERT_TRUE(process.has_value());
  EXPECT_EQ(process->state, 'S');
  EXPECT_EQ(process->parent, 7);
  EXPECT_EQ(process->session, 41);
  EXPECT_EQ(process->started, 123456u);
  EXPECT_FALSE(ParseStat("").has_value());
  EXPECT_FALSE(ParseStat("42 (short) S 7").has_value());
  ASSERT_TRUE(StateOf(getpid()).has_value());
  EXPECT_EQ(StateOf(getpid())->parent, getppid());
}

std::string Block(const std::vector<std::string>& variables) {
  std::string block;
  for (const std::string& one : variables) block.append(one).push_back('\0');
  return block;
}

TEST(ProcessMarkTest, OnlyRanksOfThisWorkDirectoryAreOurs) {
  const std::string mine = "ATHANOR_SPEC_FILE=/w/a/jobs/j/gen-0002/rank-00003.spec";
  const auto key =
      RankOfEnvironment(Block({"PATH=/bin", mine, "ATHANOR_JOB=j", "ATHANOR_GENERATION=2", "RANK=3"}), "/w/a");
  ASSERT_TRUE(key.has_value());
  EXPECT_EQ(*key, (RankKey{"j", 2, 3}));
  EXPECT_FALSE(RankOfEnvironment(Block({mine, "ATHANOR_JOB=j", "ATHANOR_GENERATION=2", "RANK=3"}), "/w/b").has_value());
  EXPECT_FALSE(RankOfEnvironment(Block({mine, "ATHANOR_JOB=j", "ATHANOR_GENERATION=x", "RANK=3"}), "/w/a").has_value());
  EXPECT_FALSE(RankOfEnvironment("", "/w/a").has_value());
}

std::string Value(const std::vector<std::string>& environment, const std::string& name) {
  for (const std::string& one : environment) {
    if (one.compare(0, name.size() + 1, name + "=") == 0) return one.substr(name.size() + 1);
  }
  return "(unset)";
}

TEST(RankEnvironmentTest, DeterministicOnCudaSetsTheWorkspaceOfCublas) {
  v1::LaunchRank launch;
  launch.mutable_spec()->mutable_resources()->set_device("cuda");
  launch.mutable_spec()->set_runner_json(R"({"deterministic": true})");
  EXPECT_EQ(Value(RankEnvironment(launch, {}, {}), "CUBLAS_WORKSPACE_CONFIG"), ":4096:8");
  (*launch.mutable_spec()->mutable_env())["CUBLAS_WORKSPACE_CONFIG"] = ":16:8";
  EXPECT_EQ(Value(RankEnvironment(launch, {}, {}), "CUBLAS_WORKSPACE_CONFIG"), ":16:8");
  launch.mutable_spec()->clear_env();
  launch.mutable_spec()->set_runner_json("{}");
  EXPECT_EQ(Value(RankEnvironment(launch, {}, {}), "CUBLAS_WORKSPACE_CONFIG"), "(unset)");
  launch.mutable_spec()->set_runner_json(R"({"deterministic": true})");
  launch.mutable_spec()->mutable_resources()->set_device("cpu");
  EXPECT_EQ(Value(RankEnvironment(launch, {}, {}), "CUBLAS_WORKSPACE_CONFIG"), "(unset)");
}

TEST(RankEnvironmentTest, TheContractCannotBeOverridden) {
  v1::LaunchRank launch;
  launch.mutable_id()->set_job("j");
  launch.mutable_id()->set_rank(3);
  auto& env = *launch.mutable_spec()->mutable_env();
  env["RANK"] = "9";
  env["PATH"] = "/mine";
  const auto environment = RankEnvironment(launch, {.log_format = "json"}, {{"PATH", "/bin"}, {"HOME", "/h"}});
  EXPECT_EQ(Value(environment, "RANK"), "3");
  EXPECT_EQ(Value(environment, "PATH"), "/mine");
  EXPECT_EQ(Value(environment, "HOME"), "/h");
  EXPECT_EQ(Value(environment, kEnvLogFormat), "json");
  launch.mutable_spec()->set_log_format("text");
  EXPECT_EQ(Value(RankEnvironment(launch, {.log_format = "json"}, {}), kEnvLogFormat), "text");
}

// Ranks that are shell scripts.
class RankProcessesTest : public testing::Test {
 protected:
  RankProcessesTest()
      : folder_(fs::path(testing::TempDir()) / absl::StrCat("rank-processes-", getpid())), logs_(folder_.string()) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    EXPECT_TRUE(BecomeReaper().ok());
    processes_ = std::make_unique<RankProcesses>(
        &logs_, RankProcesses::Handlers{.on_started =
                                            [this](const RankKey& key, const absl::StatusOr<Process>& process) {
                                              std::lock_guard lock(mutex_);
                                              EXPECT_TRUE(process.ok()) << process.status();
                                              if (process.ok()) started_[key] = *process;
                                              changed_.notify_all();
                                            },
                                        .on_ended =
                                            [this](const RankKey& key, const std::optional<v1::FailureCause>& cause) {
                                              std::lock_guard lock(mutex_);
                                              ended_[key] = cause;
                                              changed_.notify_all();
                                            }});
  }
  ~RankProcessesTest() override {
    processes_.reset();
    fs::remove_all(folder_);
  }

  Process Start(const RankKey& key, const std::string& script) {
    const fs::path program = folder_ / absl::StrCat("rank-", key.rank, ".sh");
    std::ofstream(program) << "#!/bin/sh\n" << script;
    fs::permissions(program, fs::perms::owner_all);
    v1::LaunchRank launch;
    *launch.mutable_id() = IdOf(key);
    processes_->Start(key, {v1::JobSpec(), program.string(),
                            RankEnvironment(launch, {.spec_file = logs_.SpecPath(key)}, {{"PATH", "/usr/bin:/bin"}})});
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), [&] { return started_.contains(key); }));
    return started_[key];
  }

  std::optional<v1::FailureCause> SeeOff(const RankKey& key) {
    pollfd wait = {started_[key].pidfd, POLLIN, 0};
    EXPECT_EQ(poll(&wait, 1, 20000), 1);
    processes_->SeeOff(key, started_[key]);
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), [&] { return ended_.contains(key); }));
    return ended_[key];
  }

  // A process says that it is there by opening a named pipe.
  std::string Pipe(const std::string& name) const {
    const std::string path = (folder_ / name).string();
    EXPECT_EQ(mkfifo(path.c_str(), 0600), 0);
    return path;
  }
  static pid_t ReadPid(const std::string& pipe) {
    std::ifstream input(pipe);
    pid_t pid = 0;
    input >> pid;
    return pid;
  }
  static bool Lives(pid_t pid) {
    const auto state = StateOf(pid);
    return state.has_value() && state->state != 'Z';
  }

  const fs::path folder_;
  const LogFiles logs_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RankKey, Process> started_;
  std::map<RankKey, std::optional<v1::FailureCause>> ended_;
  std::unique_ptr<RankProcesses> processes_;
};

TEST_F(RankProcessesTest, AProcessWithASessionOfItsOwnEndsWithItsRankAndNoOther) {
  const std::string one = Pipe("one"), two = Pipe("two");
  auto script = [](const std::string& pipe) {
    return absl::StrCat("(setsid sh -c 'echo $$ > ", pipe, "; exec sleep 1000' &)\nexec sleep 1000\n");
  };
  const RankKey first{"job", 1, 0}, second{"job", 1, 1};
  const Process process = Start(first, script(one));
  Start(second, script(two));
  const pid_t orphan = ReadPid(one), other = ReadPid(two);
  ASSERT_TRUE(Lives(orphan));
  KillProcessGroup(process);
  const auto cause = SeeOff(first);
  ASSERT_TRUE(cause.has_value());
  EXPECT_EQ(cause->signal(), SIGKILL);
  EXPECT_FALSE(Lives(orphan));
  EXPECT_TRUE(Lives(other));
  KillProcessGroup(started_[second]);
  SeeOff(second);
  EXPECT_FALSE(Lives(other));
}

TEST_F(RankProcessesTest, OneThatDroppedItsEnvironmentEndsWithTheLastRankThatItMayBeOf) {
  const std::string pipe = Pipe("pipe");
  const RankKey first{"job", 1, 0}, second{"job", 1, 1};
  Start(first, absl::StrCat("(setsid env -i sh -c 'echo $$ > ", pipe, "; exec sleep 1000' &)\nexec sleep 1000\n"));
  const pid_t orphan = ReadPid(pipe);
  Start(second, "exec sleep 1000\n");
  KillProcessGroup(started_[first]);
  SeeOff(first);
  KillProcessGroup(started_[second]);
  SeeOff(second);
  EXPECT_FALSE(Lives(orphan));
}

TEST_F(RankProcessesTest, AnAgentThatStartsAnewEndsWhatAKilledOneLeft) {
  const std::string pipe = Pipe("pipe");
  const RankKey key{"job", 1, 0};
  Start(key, absl::StrCat("(setsid sh -c 'echo $$ > ", pipe, "; exec sleep 1000' &)\nexec sleep 1000\n"));
  const pid_t orphan = ReadPid(pipe);
  EXPECT_EQ(EndMarked((folder_ / "other").string(), absl::Seconds(5)), 0);
  EXPECT_TRUE(Lives(orphan));
  EXPECT_EQ(EndMarked(folder_.string(), absl::Seconds(5)), 2);
  EXPECT_FALSE(Lives(orphan));
  SeeOff(key);
}

TEST_F(RankProcessesTest, ProgramsOfTheAgentItselfAreLeftAlone) {
  const pid_t child = fork();
  if (child == 0) {
    execlp("sleep", "sleep", "1000", nullptr);
    _exit(127);
  }
  EXPECT_EQ(EndLeftovers({}, folder_.string(), absl::Seconds(2)), 0);
  EXPECT_TRUE(Lives(child));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

// The loop only posts: it has its answer before the first of many ranks is there.
TEST_F(RankProcessesTest, ManyRanksAtOnceDoNotHoldUpWhoAsksForThem) {
  constexpr int kRanks = 64;
  v1::LaunchRank launch;
  const absl::Time began = absl::Now();
  for (int rank = 0; rank < kRanks; ++rank) {
    const RankKey key{"job", 1, rank};
    processes_->Start(key,
                      {v1::JobSpec(), "/bin/true", RankEnvironment(launch, {.spec_file = logs_.SpecPath(key)}, {})});
  }
  const absl::Duration posted = absl::Now() - began;
  std::unique_lock lock(mutex_);
  ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return started_.size() == kRanks; }));
  lock.unlock();
  for (int rank = 0; rank < kRanks; ++rank) EXPECT_FALSE(SeeOff({"job", 1, rank}).has_value());
  RecordProperty("posted_us", static_cast<int>(absl::ToInt64Microseconds(posted)));
  EXPECT_LT(posted, absl::Milliseconds(500));
}

}  // namespace
}  // namespace athanor::agent
