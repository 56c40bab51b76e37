// The real athanor-trainer, started as an agent starts it, against an agent in this process.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <nlohmann/json.hpp>
#include "athanor/contract/exit_codes.h"
#include "athanor/contract/rank_environment.h"
#include "athanor/v1/job.pb.h"
#include "tests/unit/worker/trainer/fake_agent.h"
#include "worker/trainer/trainer_env.h"

namespace athanor {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const char kDigits[] = ATHANOR_SOURCE_DIR "/examples/data/digits/digits.csv";

std::string ReadText(const fs::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

class TrainerTest : public testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/athanor-trainer-XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
    options_ = {{"data", kDigits}, {"hidden", json::array({32})}};
    runner_ = {{"seed", 7},
               {"steps", 60},
               {"log_interval", 10},
               {"optim", {{"type", "adamw"}, {"lr", 0.01}}},
               {"dataloader", {{"batch_size", 32}}},
               {"comm", {{"train_timeout_seconds", 20}}},
               {"checkpoint", {{"interval", 20}, {"keep_latest_k", 2}, {"async_enabled", false}}},
               {"evaluate", {{"interval", 1000000}}}};
  }
  void TearDown() override {
    for (pid_t pid : running_) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
    if (HasFailure()) {
      for (const auto& entry : fs::directory_iterator(folder_)) {
        if (entry.path().extension() == ".log") std::cerr << entry.path() << "\n" << ReadText(entry.path());
      }
    }
    agent_.reset();
    fs::remove_all(folder_);
  }

  void StartAgent(int world_size) {
    world_size_ = world_size;
    agent_.reset();  // lets go of the socket
    agent_ = std::make_unique<FakeAgent>((folder_ / "agent.sock").string(), world_size);
  }

  pid_t StartRank(int rank) {
    v1::JobSpec spec;
    spec.set_name("test");
    spec.mutable_task()->set_name(task_);
    spec.mutable_task()->set_library(library_);
    spec.mutable_task()->set_options_json(options_.dump());
    spec.set_runner_json(runner_.dump());
    spec.mutable_timeouts()->mutable_join()->set_seconds(30);
    const std::string spec_file = (folder_ / "spec.pb").string();
    std::ofstream(spec_file, std::ios::binary) << spec.SerializeAsString();
    auto set = [](const char* name, const std::string& value) { return std::string(name) + "=" + value; };
    std::vector<std::string> env = {set(kEnvSocket, (folder_ / "agent.sock").string()),
                                    set(kEnvJob, "test-1"),
                                    set(kEnvGeneration, std::to_string(generation_)),
                                    set(kEnvRank, std::to_string(rank)),
                                    set(kEnvWorldSize, std::to_string(world_size_)),
                                    set(kEnvLocalRank, std::to_string(rank)),
                                    set(kEnvSpecFile, spec_file),
                                    set(kEnvJobDir, (folder_ / "job").string()),
                                    set(kEnvHost, "127.0.0.1"),
                                    set(kEnvSlots, std::to_string(rank)),
                                    set(kEnvDevice, "cpu"),
                                    set(kEnvFailureFile, FailureFile(rank).string()),
                                    set(kEnvRestarts, "0")};
    env.insert(env.end(), extra_env_.begin(), extra_env_.end());
    std::vector<char*> pointers;
    for (std::string& value : env) pointers.push_back(value.data());
    pointers.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    const std::string log = Log(rank).string();
    posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    char program[] = TRAINER;
    char* arguments[] = {program, nullptr};
    pid_t pid = -1;
    EXPECT_EQ(posix_spawn(&pid, TRAINER, &actions, nullptr, arguments, pointers.data()), 0);
    posix_spawn_file_actions_destroy(&actions);
    running_.insert(pid);
    return pid;
  }

  // Exit code, or -signal.
  int Wait(pid_t pid) {
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    running_.erase(pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  // The exit codes of all ranks.
  std::vector<int> RunAll() {
    std::vector<pid_t> pids;
    for (int rank = 0; rank < world_size_; ++rank) pids.push_back(StartRank(rank));
    std::vector<int> codes;
    for (pid_t pid : pids) codes.push_back(Wait(pid));
    return codes;
  }

  fs::path FailureFile(int rank) const { return folder_ / ("failure-" + std::to_string(rank) + ".json"); }
  fs::path Log(int rank) const { return folder_ / ("rank-" + std::to_string(rank) + ".log"); }
  json Failure(int rank) const { return json::parse(ReadText(FailureFile(rank)), nullptr, false); }

  fs::path folder_;
  int world_size_ = 1, generation_ = 1;
  std::string task_ = "digits_mlp", library_;
  json options_, runner_;
  std::vector<std::string> extra_env_;
  std::set<pid_t> running_;
  std::unique_ptr<FakeAgent> agent_;
};

TEST_F(TrainerTest, TwoRanksJoinTrainCommitAndFinish) {
  StartAgent(2);
  EXPECT_THAT(RunAll(), ElementsAre(kExitFinished, kExitFinished));
  EXPECT_THAT(agent_->finished, ElementsAre(0, 1));
  EXPECT_THAT(agent_->committed, ElementsAre(20, 40, 60));
  ASSERT_EQ(agent_->evaluated.size(), 1u);
  EXPECT_EQ(agent_->evaluated[0].step(), 60);
  EXPECT_FALSE(agent_->evaluated[0].metrics().empty());
  EXPECT_THAT(agent_->abandoned, IsEmpty());
  EXPECT_EQ(agent_->final_progress[0].step(), 60);
  EXPECT_EQ(agent_->final_progress[0].total_steps(), 60);
  EXPECT_GT(agent_->final_progress[0].metrics().at("test.accuracy"), 0.8);
  EXPECT_TRUE(fs::exists(folder_ / "job/step-000000000060/manifest.json"));
  EXPECT_FALSE(fs::exists(FailureFile(0)));
  EXPECT_THAT(ReadText(Log(1)), HasSubstr("Joined job=test-1 generation=1 rank=1 world=2"));
}

TEST_F(TrainerTest, AnEndedGenerationLeavesAtOnce) {
  StartAgent(1);
  agent_->EndGeneration();
  EXPECT_THAT(RunAll(), ElementsAre(kExitStale));
  EXPECT_THAT(Failure(0).value("detail", ""), HasSubstr("generation 1 is over"));
}

TEST_F(TrainerTest, AGenerationThatEndsDuringTrainingLeavesAtItsNextVote) {
  runner_["steps"] = 1000000;
  StartAgent(1);
  const pid_t pid = StartRank(0);
  ASSERT_TRUE(agent_->WaitUntil([](FakeAgent& agent) { return !agent.committed.empty(); }));
  agent_->EndGeneration();
  EXPECT_EQ(Wait(pid), kExitStale);
}

TEST_F(TrainerTest, ARequestToStopSavesOnAllRanksAndLeaves) {
  runner_["steps"] = 1000000;
  runner_["checkpoint"]["interval"] = 1000000;
  StartAgent(2);
  const pid_t first = StartRank(0), second = StartRank(1);
  ASSERT_TRUE(agent_->WaitUntil([](FakeAgent& agent) { return agent.progress[1].step() >= 20; }));
  agent_->AskToStop("suspended by a test");
  EXPECT_EQ(Wait(first), kExitPreempted);
  EXPECT_EQ(Wait(second), kExitPreempted);
  EXPECT_EQ(agent_->committed.size(), 1u);
  EXPECT_THAT(agent_->finished, IsEmpty());
  EXPECT_EQ(Failure(0).value("kind", ""), "preempted");
  EXPECT_THAT(Failure(0).value("detail", ""), HasSubstr("suspended by a test"));
}

TEST_F(TrainerTest, ASignalOnOneRankStopsBoth) {
  runner_["steps"] = 1000000;
  StartAgent(2);
  const pid_t first = StartRank(0), second = StartRank(1);
  ASSERT_TRUE(agent_->WaitUntil([](FakeAgent& agent) { return agent.progress[0].step() >= 20; }));
  kill(second, SIGTERM);
  EXPECT_EQ(Wait(first), kExitPreempted);
  EXPECT_EQ(Wait(second), kExitPreempted);
}

TEST_F(TrainerTest, TheNextGenerationContinuesWhereTheLastOneWasKilled) {
  StartAgent(1);
  extra_env_ = {"ATHANOR_FAILPOINT=trainer.step=kill@50"};
  EXPECT_THAT(RunAll(), ElementsAre(-SIGKILL));
  ASSERT_THAT(agent_->committed, ElementsAre(20, 40));
  extra_env_.clear();
  generation_ = 2;
  agent_->OfferResume(40, (folder_ / "job/step-000000000040").string());
  EXPECT_THAT(RunAll(), ElementsAre(kExitFinished));
  EXPECT_EQ(agent_->final_progress[0].resumed_from_step(), 40);
  EXPECT_THAT(agent_->committed, ElementsAre(20, 40, 60));
  ASSERT_EQ(agent_->evaluated.size(), 1u);
  EXPECT_EQ(agent_->evaluated[0].step(), 60);
  EXPECT_FALSE(agent_->evaluated[0].metrics().empty());
}

TEST_F(TrainerTest, ARankWhosePeerDiesSaysPeerLost) {
  runner_["steps"] = 1000000;
  runner_["checkpoint"]["interval"] = 1000000;
  StartAgent(2);
  const pid_t first = StartRank(0), second = StartRank(1);
  ASSERT_TRUE(agent_->WaitUntil([](FakeAgent& agent) { return agent.progress[0].step() >= 20; }));
  kill(second, SIGKILL);
  EXPECT_EQ(Wait(second), -SIGKILL);
  EXPECT_EQ(Wait(first), kExitPeerLost);
  EXPECT_EQ(Failure(0).value("kind", ""), "peer_lost");
}

TEST_F(TrainerTest, FaultsOfTheUsersCodeHaveTheirOwnExitCodes) {
  task_ = "faulty";
  library_ = FAULTY_TASK;
  const json options = options_;
  const struct {
    json fault;
    int code;
    std::string kind, detail;
  } kCases[] = {{{{"throw_at_step", 5}}, kExitUserCode, "user_code", "as asked by throw_at_step"},
                {{{"oom_at_step", 5}}, kExitOutOfMemory, "out_of_memory", ""},
                {{{"nan_from_step", 5}}, kExitNanLoss, "nan_loss", "not finite"}};
  for (const auto& fault : kCases) {
    SCOPED_TRACE(fault.kind);
    options_ = options;
    options_.update(fault.fault);
    StartAgent(1);
    EXPECT_THAT(RunAll(), ElementsAre(fault.code));
    EXPECT_EQ(Failure(0).value("kind", ""), fault.kind);
    EXPECT_THAT(Failure(0).value("detail", ""), HasSubstr(fault.detail));
  }
  options_ = options;
  options_["exit_code_at_step"] = 5;
  StartAgent(1);
  EXPECT_THAT(RunAll(), ElementsAre(kExitDoNotRestart));
}

// The mount point is empty while the coordinator offers checkpoints.
TEST_F(TrainerTest, AStorageThatIsAwayIsACauseOfItsOwnAndNoDamage) {
  StartAgent(1);
  extra_env_ = {"ATHANOR_FAILPOINT=trainer.step=kill@50"};
  EXPECT_THAT(RunAll(), ElementsAre(-SIGKILL));
  ASSERT_EQ(agent_->storage.size(), 32u);
  extra_env_.clear();
  generation_ = 2;
  const fs::path job = folder_ / "job", id = folder_ / ".athanor-storage", away = folder_ / "away";
  agent_->OfferResume(40, (job / "step-000000000040").string(), agent_->storage);
  fs::create_directory(away);
  fs::rename(job, away / "job");
  fs::rename(id, away / "id");
  EXPECT_THAT(RunAll(), ElementsAre(kExitStorage));
  EXPECT_EQ(Failure(0).value("kind", ""), "storage");
  EXPECT_THAT(Failure(0).value("detail", ""), HasSubstr("is it mounted?"));
  EXPECT_THAT(agent_->damaged, IsEmpty());
  EXPECT_FALSE(fs::exists(job)) << "nothing is written there";
  EXPECT_FALSE(fs::exists(id));
  fs::rename(away / "job", job);
  fs::rename(away / "id", id);
  generation_ = 3;
  EXPECT_THAT(RunAll(), ElementsAre(kExitFinished));
  EXPECT_EQ(agent_->final_progress[0].resumed_from_step(), 40);
  EXPECT_GT(agent_->final_progress[0].phase_progress(), 0) << "bytes read, batches evaluated";
}

TEST_F(TrainerTest, ARankThatNeverComesIsNoticedWithinTheInitTimeout) {
  runner_["comm"] = {{"init_timeout_seconds", 1}, {"train_timeout_seconds", 3600}};
  StartAgent(2);
  agent_->PretendJoined(1);
  EXPECT_EQ(Wait(StartRank(0)), kExitPeerLost);
}

TEST_F(TrainerTest, ASharedObjectRegistersItsTaskInTheTrainer) {
  task_ = "custom_sine";
  library_ = CUSTOM_TASK;
  options_ = {{"points", 64}};
  StartAgent(2);
  EXPECT_THAT(RunAll(), ElementsAre(kExitFinished, kExitFinished));
  EXPECT_TRUE(agent_->final_progress[0].metrics().contains("test.absolute_error"));
}

TEST_F(TrainerTest, WhatCannotWorkIsRefusedByName) {
  const fs::path writable = folder_ / "open.so";
  fs::copy_file(CUSTOM_TASK, writable);
  fs::permissions(writable, fs::perms::others_write, fs::perm_options::add);
  const struct {
    std::string task, library, option, detail;
  } kCases[] = {{"digits_mlp", "", "droput", "did you mean \"dropout\""},
                {"digits_mpl", "", "", "did you mean \"digits_mlp\""},
                {"custom_sine", "libcustom_task.so", "", "an absolute path"},
                {"custom_sine", "/nowhere/libcustom_task.so", "", "cannot read /nowhere/libcustom_task.so"},
                {"custom_sine", writable.string(), "", "can be written by everyone"},
                {"custom_sine", kDigits, "", "cannot load"}};
  for (const auto& wrong : kCases) {
    SCOPED_TRACE(wrong.detail);
    task_ = wrong.task;
    library_ = wrong.library;
    options_ = {{"data", kDigits}};
    if (!wrong.option.empty()) options_[wrong.option] = 0.1;
    StartAgent(1);
    EXPECT_THAT(RunAll(), ElementsAre(kExitInvalid));
    EXPECT_EQ(Failure(0).value("kind", ""), "invalid");
    EXPECT_THAT(Failure(0).value("detail", ""), HasSubstr(wrong.detail));
  }
}

TEST_F(TrainerTest, AMissingDataFileIsACauseOfItsOwn) {
  options_["data"] = "/nowhere/digits.csv";
  StartAgent(1);
  EXPECT_THAT(RunAll(), ElementsAre(kExitData));
  EXPECT_THAT(Failure(0).value("detail", ""), HasSubstr("/nowhere/digits.csv"));
}

TEST(TrainerEnvTest, NamesEveryVariableThatIsWrong) {
  std::map<std::string, std::string> values = {{kEnvRank, "7"}, {kEnvWorldSize, "x"}};
  const auto env =
      ReadTrainerEnv([&](const char* name) { return values.contains(name) ? values[name].c_str() : nullptr; });
  ASSERT_FALSE(env.ok());
  const std::string message(env.status().message());
  for (const char* name : {kEnvSocket, kEnvJob, kEnvGeneration, kEnvSpecFile, kEnvJobDir}) {
    EXPECT_THAT(message, HasSubstr(std::string(name) + " is not set"));
  }
  EXPECT_THAT(message, HasSubstr("WORLD_SIZE is 'x'; allowed: 1 to 4096"));
}

}  // namespace
}  // namespace athanor
