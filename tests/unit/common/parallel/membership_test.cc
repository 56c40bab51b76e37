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
