#include "athanor/parallel/membership.h"

#include "athanor/parallel/patience.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/common/parallel/rank_threads.h"

namespace athanor {
namespace {

using testing::HasSubstr;

TEST(Membership, OneRankAloneHasNobodyToTalkTo) {
  const Membership alone;
  EXPECT_EQ(alone.world_size(), 1);
  EXPECT_TRUE(alone.is_main());
  EXPECT_FALSE(alone.several());
  EXPECT_EQ(alone.group(), nullptr);
}

TEST(Membership, TopologyAndGroupMustBeOfTheSameRanks) {
  EXPECT_THAT(std::string(Membership::Create(*ParallelTopology::Create(2, 1, 1), nullptr).status().message()),
              HasSubstr("the topology has 2 ranks, the process group 1"));
  RunRanks(2, /*shared_memory=*/true, [](ProcessGroup* group) {
    EXPECT_TRUE(Membership::Create(*ParallelTopology::Create(2, group->rank(), 0), group).ok());
    const int other = 1 - group->rank();
    EXPECT_THAT(std::string(Membership::Create(*ParallelTopology::Create(2, other, 0), group).status().message()),
                HasSubstr("the topology is of rank"));
    const Membership members = group;
    EXPECT_EQ(members.rank(), group->rank());
    EXPECT_EQ(members.data_parallel_size(), 2);
    EXPECT_EQ(members.data_parallel_rank(), group->rank());
  });
}

TEST(Membership, EveryRankOfAPlainTopologyIsAReplica) {
  const ParallelTopology topology = *ParallelTopology::Create(4, 3, 1);
  EXPECT_EQ(topology.degree("replicate"), 4);
  EXPECT_EQ(topology.data_parallel_rank(), 3);
  EXPECT_EQ(topology.local_rank(), 1);
  EXPECT_FALSE(topology.is_main());
}

TEST(Membership, AxesHaveGroupsOfTheirOwn) {
  for (const bool shared_memory : {true, false}) {
    RunRanks(4, shared_memory, [](ProcessGroup* group) {
      const auto plain = ParallelTopology::Create(4, group->rank(), 0);
      const auto topology = plain->WithAxes({{"replicate", 2}, {"shard", -1}});
      ASSERT_TRUE(topology.ok()) << topology.status();
      EXPECT_EQ(topology->rank(), group->rank());
      const auto members = Membership::Create(*topology, group);
      ASSERT_TRUE(members.ok()) << members.status();
      const auto shard = members->GroupOf("shard"), replicate = members->GroupOf("replicate");
      ASSERT_TRUE(shard.ok() && replicate.ok()) << shard.status() << replicate.status();
      EXPECT_EQ((*shard)->world_size(), 2);
      EXPECT_EQ((*shard)->rank(), group->rank() % 2);
      EXPECT_EQ((*replicate)->rank(), group->rank() / 2);
      EXPECT_EQ(*members->GroupOf("shard"), *shard);  // made once
      EXPECT_EQ(*members->GroupOf("data"), group);
      EXPECT_EQ(*members->GroupOf("tensor"), nullptr);
      EXPECT_THAT(std::string(members->GroupOf("depth").status().message()), HasSubstr("no axis or domain 'depth'"));
      // Ranks 0, 1 and 2, 3; then 0, 2 and 1, 3.
      torch::Tensor one = torch::full({3}, 1.0 + group->rank()), other = one.clone();
      ASSERT_EQ((*shard)->AllReduceSum(one), absl::OkStatus());
      ASSERT_EQ((*replicate)->AllReduceSum(other), absl::OkStatus());
      EXPECT_TRUE(torch::equal(one, torch::full({3}, group->rank() < 2 ? 3.0 : 7.0)));
      EXPECT_TRUE(torch::equal(other, torch::full({3}, group->rank() % 2 == 0 ? 4.0 : 6.0)));
      group->SetTimeout(absl::Seconds(7));
      EXPECT_EQ((*shard)->timeout(), absl::Seconds(7));
      EXPECT_FALSE(group->Subgroup({3, 1}).ok());
      EXPECT_FALSE(group->Subgroup({(group->rank() + 1) % 4}).ok());
      EXPECT_EQ(group->Barrier(absl::Seconds(20)), absl::OkStatus());
      group->Abort();
      EXPECT_TRUE(absl::IsUnavailable((*shard)->AllReduceSum(one)));
    });
  }
}

TEST(Patience, LetsCollectivesWaitLongerAndPutsTheLimitBack) {
  RunRanks(2, /*shared_memory=*/true, [](ProcessGroup* group) {
    const absl::Duration before = group->timeout();
    {
      const Patience patience(group, before + absl::Hours(1));
      EXPECT_EQ(group->timeout(), before + absl::Hours(1));
      EXPECT_EQ(group->Barrier(group->timeout()), absl::OkStatus());
    }
    EXPECT_EQ(group->timeout(), before);
    const Patience shorter(group, absl::ZeroDuration());
    EXPECT_EQ(group->timeout(), before);
  });
}

}  // namespace
}  // namespace athanor
