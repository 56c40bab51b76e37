#include "athanor/parallel/launch_environment.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <map>
#include <thread>

namespace athanor {
namespace {

using testing::HasSubstr;

// The variables of a launcher, set for one test.
class LaunchEnvironmentTest : public testing::Test {
 protected:
  void SetUp() override { Clear(); }
  void TearDown() override { Clear(); }
  void Set(const std::map<std::string, std::string>& variables) {
    for (const auto& [name, value] : variables) setenv(name.c_str(), value.c_str(), 1);
  }

 private:
  static void Clear() {
    for (const char* name :
         {"WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT",
          "TORCHELASTIC_USE_AGENT_STORE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"})
      unsetenv(name);
  }
};

TEST_F(LaunchEnvironmentTest, NothingSetIsOneRank) {
  const auto launch = ReadLaunchEnvironment(std::nullopt);
  ASSERT_TRUE(launch.ok()) << launch.status();
  EXPECT_EQ(launch->world_size, 1);
  const auto ranks = JoinLaunchedRanks(*launch, CommConfig(), torch::kCPU);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  EXPECT_EQ(ranks->group, nullptr);
  EXPECT_TRUE(ranks->topology.is_main());
}

TEST_F(LaunchEnvironmentTest, OneOfSeveralRanksIsNotAlone) {
  EXPECT_TRUE(CheckLaunchedAlone().ok());
  for (const char* name : {"WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    setenv(name, "1", 1);
    EXPECT_TRUE(CheckLaunchedAlone().ok()) << name;
    setenv(name, "4", 1);
    const absl::Status status = CheckLaunchedAlone();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                testing::AllOf(HasSubstr(name), HasSubstr("4 ranks"), HasSubstr("Join")));
    unsetenv(name);
  }
}

TEST_F(LaunchEnvironmentTest, ReadsWhatTorchrunSays) {
  Set({{"WORLD_SIZE", "4"},
       {"RANK", "3"},
       {"LOCAL_RANK", "1"},
       {"MASTER_ADDR", "10.1.2.3"},
       {"MASTER_PORT", "29500"},
       {"TORCHELASTIC_RESTART_COUNT", "2"},
       {"TORCHELASTIC_USE_AGENT_STORE", "True"}});
  const auto launch = ReadLaunchEnvironment("env://");
  ASSERT_TRUE(launch.ok()) << launch.status();
  EXPECT_EQ(launch->rank, 3);
  EXPECT_EQ(launch->local_rank, 1);
  EXPECT_EQ(launch->store_host, "10.1.2.3");
  EXPECT_EQ(launch->store_port, 29500);
  EXPECT_TRUE(launch->store_is_hosted);
  EXPECT_EQ(launch->restarts, 2);
  const auto elsewhere = ReadLaunchEnvironment("tcp://[::1]:77");
  ASSERT_TRUE(elsewhere.ok()) << elsewhere.status();
  EXPECT_EQ(elsewhere->store_port, 77);
  EXPECT_FALSE(elsewhere->store_is_hosted);
}

TEST_F(LaunchEnvironmentTest, MistakesNameTheVariable) {
  Set({{"WORLD_SIZE", "two"}});
  EXPECT_THAT(std::string(ReadLaunchEnvironment(std::nullopt).status().message()),
              HasSubstr("WORLD_SIZE: found \"two\"; allowed: 1 to"));
  Set({{"WORLD_SIZE", "2"}, {"RANK", "2"}});
  EXPECT_THAT(std::string(ReadLaunchEnvironment(std::nullopt).status().message()),
              HasSubstr("RANK: found \"2\"; allowed: 0 to 1"));
  Set({{"RANK", "1"}});
  EXPECT_THAT(std::string(ReadLaunchEnvironment(std::nullopt).status().message()), HasSubstr("MASTER_ADDR"));
  Set({{"MASTER_ADDR", "localhost"}, {"MASTER_PORT", "0"}});
  EXPECT_THAT(std::string(ReadLaunchEnvironment(std::nullopt).status().message()), HasSubstr("MASTER_PORT: found"));
  for (const char* method : {"file:///tmp/x", "tcp://", "tcp://host", "tcp://host:0", "tcp://:5"}) {
    EXPECT_THAT(std::string(ReadLaunchEnvironment(method).status().message()), HasSubstr("comm.init_method: found"))
        << method;
  }
}

TEST_F(LaunchEnvironmentTest, RanksMeetAtAnAddressOfTheirChoice) {
  int port = 0;
  {
    auto probe = HostStore::Create({});
    ASSERT_TRUE(probe.ok());
    port = (*probe)->port();
  }
  CommConfig comm;
  comm.init_timeout_seconds = 20;
  std::vector<double> sums(3);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 3; ++rank) {
    threads.emplace_back([&, rank] {
      LaunchEnvironment launch{
          .world_size = 3, .rank = rank, .local_rank = rank, .store_host = "127.0.0.1", .store_port = port};
      auto ranks = JoinLaunchedRanks(launch, comm, torch::kCPU);
      ASSERT_TRUE(ranks.ok()) << ranks.status();
      EXPECT_EQ(ranks->topology.rank(), rank);
      EXPECT_EQ(ranks->store != nullptr, rank == 0);
      const auto sum = ranks->group->AllReduceSum(std::vector<double>{1.0 + rank});
      ASSERT_TRUE(sum.ok()) << sum.status();
      sums[static_cast<size_t>(rank)] = (*sum)[0];
      EXPECT_TRUE(ranks->group->Barrier(absl::Seconds(20)).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(sums, testing::Each(6.0));
}

TEST_F(LaunchEnvironmentTest, ABackendThatDoesNotServeTheDeviceIsRefused) {
  CommConfig comm;
  comm.backend = "nccl";
  comm.init_timeout_seconds = 5;
  const LaunchEnvironment launch{.world_size = 2, .rank = 0, .store_host = "127.0.0.1"};
  EXPECT_EQ(JoinLaunchedRanks(launch, comm, torch::kCPU).status().message(),
            "comm.backend: found \"nccl\"; allowed on cpu: auto, host, gloo");
}

}  // namespace
}  // namespace athanor
