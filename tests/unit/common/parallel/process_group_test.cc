#include "athanor/parallel/process_group.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <map>

#include "athanor/parallel/host_memory_group.h"
#include "athanor/parallel/topology.h"
#include "athanor/torch/status.h"
#include "gmock/gmock.h"
#include "tests/unit/common/parallel/rank_threads.h"

namespace athanor {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Topology, RefusesWhatCannotBe) {
  EXPECT_TRUE(Topology::Create(4, 3, 1).ok());
  EXPECT_THAT(std::string(Topology::Create(2, 2, 0).status().message()), HasSubstr("rank is 2, must be in 0 .. 1"));
  EXPECT_FALSE(Topology::Create(0, 0, 0).ok());
  EXPECT_FALSE(Topology::Create(2, 0, -1).ok());
}

// Ranks; whether they share memory; how they are connected otherwise.
class ProcessGroupTest : public ::testing::TestWithParam<std::tuple<int, bool, std::string>> {
 protected:
  int world() const { return std::get<0>(GetParam()); }
  bool shared() const { return std::get<1>(GetParam()); }
  void Run(const std::function<void(ProcessGroup*)>& body) {
    RunRanks(world(), shared(), body, absl::Seconds(20), std::get<2>(GetParam()));
  }
};

TEST_P(ProcessGroupTest, Collectives) {
  Run([world = world(), shared = shared()](ProcessGroup* group) {
    EXPECT_EQ(group->host_memory() != nullptr, shared && world > 1);
    const int rank = group->rank();
    for (int round = 0; round < 50; ++round) {
      // Larger than a slot of the shared memory, and no multiple of it.
      const int64_t count = round == 0 ? 700001 : 1 + round * 37;
      torch::Tensor tensor = torch::full({count}, rank + 1.0f + round);
      ASSERT_TRUE(group->AllReduceSum(tensor).ok());
      const float sum = static_cast<float>(world * (world + 1) / 2 + world * round);
      EXPECT_TRUE((tensor == sum).all().item<bool>());
    }
    for (int root = 0; root < world; ++root) {
      torch::Tensor tensor = torch::full({300000}, rank, torch::kInt64);
      ASSERT_TRUE(group->Broadcast(tensor, root).ok());
      EXPECT_TRUE((tensor == root).all().item<bool>());
    }
    auto agreement = group->AllAgree({rank, -rank, 7});
    ASSERT_TRUE(agreement.ok()) << agreement.status();
    EXPECT_THAT(agreement->min, ElementsAre(0, -(world - 1), 7));
    EXPECT_THAT(agreement->max, ElementsAre(world - 1, 0, 7));
    auto sums = group->AllReduceSum(std::vector<double>{1.5, static_cast<double>(rank)});
    ASSERT_TRUE(sums.ok());
    EXPECT_THAT(*sums, ElementsAre(1.5 * world, world * (world - 1) / 2.0));
    EXPECT_TRUE(group->Barrier(absl::Seconds(10)).ok());
  });
}

TEST_P(ProcessGroupTest, AllGatherKeepsEveryBit) {
  Run([world = world()](ProcessGroup* group) {
    // Beyond a slot of the shared memory and no multiple of it; a dtype that cannot be summed; a number; nothing.
    for (const auto& [sizes, dtype] :
         {std::pair{std::vector<int64_t>{1300001}, torch::kByte}, std::pair{std::vector<int64_t>{3, 5}, torch::kHalf},
          std::pair{std::vector<int64_t>{}, torch::kDouble}, std::pair{std::vector<int64_t>{0, 4}, torch::kLong}}) {
      const auto of_rank = [&, sizes = sizes, dtype = dtype](int rank) {
        return torch::randint(0, 200, sizes, at::detail::createCPUGenerator(rank + 1)).to(dtype);
      };
      const absl::StatusOr<torch::Tensor> all = group->AllGather(of_rank(group->rank()));
      ASSERT_TRUE(all.ok()) << all.status();
      ASSERT_EQ(all->size(0), world);
      for (int rank = 0; rank < world; ++rank) EXPECT_TRUE(torch::equal((*all)[rank], of_rank(rank))) << rank;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Worlds, ProcessGroupTest,
                         ::testing::Combine(::testing::Values(1, 2, 3, 5), ::testing::Values(false, true),
                                            ::testing::Values("host", "gloo")));

TEST(ProcessGroup, EveryTransportGivesGloosSum) {
  std::map<std::string, torch::Tensor> sums;
  for (const std::string name : {"memory", "host", "gloo"}) {
    const auto body = [&](ProcessGroup* group) {
      torch::Tensor tensor = torch::rand({50000}, at::detail::createCPUGenerator(group->rank() + 1));
      ASSERT_TRUE(group->AllReduceSum(tensor).ok());
      if (group->rank() == 0) sums[name] = tensor;
    };
    RunRanks(2, /*shared_memory=*/name == "memory", body, absl::Seconds(20), name == "gloo" ? "gloo" : "host");
  }
  EXPECT_TRUE(torch::equal(sums["memory"], sums["gloo"]));
  EXPECT_TRUE(torch::equal(sums["host"], sums["gloo"]));
}

TEST(ProcessGroup, RanksOfDifferentSizesAreBothNamed) {
  RunRanks(2, /*shared_memory=*/false, [&](ProcessGroup* group) {
    const absl::Status status = group->AllReduceSum(torch::ones({10 + group->rank()}));
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("10 x Float, sum"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("11 x Float, sum"));
    EXPECT_EQ(FailureKindOf(status), FailureKind::kUserCode);
  });
}

TEST(ProcessGroup, RefusesBadRanksAndMissingStores) {
  EXPECT_TRUE(absl::IsInvalidArgument(ProcessGroup::Create({.rank = 2, .world_size = 2}).status()));
  EXPECT_FALSE(HostStore::Create({.host = "203.0.113.7"}).ok());
  auto gone = ProcessGroup::Create({.rank = 1, .world_size = 2, .store_port = 1, .timeout = absl::Seconds(1)});
  EXPECT_EQ(FailureKindOf(gone.status()), FailureKind::kPeerLost) << gone.status();
}

class PeerLossTest : public ::testing::TestWithParam<bool> {};

TEST_P(PeerLossTest, AbortEndsWhatWaits) {
  RunRanks(2, GetParam(), [&](ProcessGroup* group) {
    if (group->rank() == 1) {
      group->Abort();
      EXPECT_FALSE(group->AllReduceSum(torch::ones({4})).ok());
      return;
    }
    const absl::Status status = group->AllReduceSum(torch::ones({4}));
    EXPECT_EQ(FailureKindOf(status), FailureKind::kPeerLost) << status;
  });
}

TEST_P(PeerLossTest, TimeoutIsPeerLost) {
  RunRanks(
      2, GetParam(),
      [&](ProcessGroup* group) {
        if (group->rank() == 1) return;  // leaves without a word
        const absl::Status status = group->Barrier(absl::Milliseconds(300));
        EXPECT_EQ(FailureKindOf(status), FailureKind::kPeerLost) << status;
      },
      absl::Seconds(5));
}

// A rank in a process of its own, killed in the middle: the other one learns it long before its timeout.
TEST_P(PeerLossTest, KilledPeerIsSeen) {
  auto store = HostStore::Create({});
  ASSERT_TRUE(store.ok());
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const auto join = [&](int rank) {
    return ProcessGroup::Create({.rank = rank,
                                 .world_size = 2,
                                 .store_port = (*store)->port(),
                                 .prefix = "kill/1",
                                 .timeout = absl::Seconds(60),
                                 .shared_memory = GetParam()});
  };
  const pid_t child = fork();
  if (child == 0) {
    auto group = join(1);
    char byte = group.ok() && (*group)->Barrier(absl::Seconds(20)).ok() ? 'y' : 'n';
    if (write(ready[1], &byte, 1) != 1) _exit(1);
    while (true) pause();
  }
  auto group = join(0);
  ASSERT_TRUE(group.ok()) << group.status();
  ASSERT_TRUE((*group)->Barrier(absl::Seconds(20)).ok());
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  ASSERT_EQ(byte, 'y');
  std::thread killer([&] { kill(child, SIGKILL); });
  const absl::Time start = absl::Now();
  const absl::Status status = (*group)->AllReduceSum(torch::ones({1000}));
  EXPECT_EQ(FailureKindOf(status), FailureKind::kPeerLost) << status;
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
  killer.join();
  waitpid(child, nullptr, 0);
  close(ready[0]);
  close(ready[1]);
}

INSTANTIATE_TEST_SUITE_P(Transports, PeerLossTest, ::testing::Bool());

}  // namespace
}  // namespace athanor
