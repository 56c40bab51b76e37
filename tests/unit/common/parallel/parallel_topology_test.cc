#include "athanor/parallel/parallel_topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace athanor {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ParallelTopologyTest, RanksAndCoordinatesAreOneToOne) {
  const auto topology = ParallelTopology::Create(24, {{"replicate", 2}, {"shard", -1}, {"tensor", 2}, {"expert", 2}});
  ASSERT_TRUE(topology.ok()) << topology.status();
  EXPECT_EQ(topology->degree("shard"), 3);
  std::set<std::map<std::string, int64_t>> seen;
  for (int64_t rank = 0; rank < 24; ++rank) {
    EXPECT_EQ(*topology->RankAt(topology->Coordinates(rank)), rank);
    EXPECT_TRUE(seen.insert(topology->Coordinates(rank)).second);
  }
  EXPECT_EQ(*topology->RankAt({{"tensor", 1}}, /*from=*/8), 10);
  EXPECT_FALSE(topology->RankAt({{"tensor", 2}}).ok());
}

TEST(ParallelTopologyTest, MembersOfADomainShareEverythingElse) {
  const auto topology = *ParallelTopology::Create(8, {{"replicate", 2}, {"shard", 2}, {"tensor", 2}});
  EXPECT_THAT(topology.DomainMembers("data", 3), ElementsAre(1, 3, 5, 7));
  EXPECT_THAT(topology.DomainMembers("tensor", 3), ElementsAre(2, 3));
  EXPECT_EQ(topology.DomainMembers("optimizer", 3).size(), 8u);
  for (const std::string& domain : ParallelTopology::Domains()) {
    for (int64_t rank = 0; rank < 8; ++rank) {
      const auto members = topology.DomainMembers(domain, rank);
      EXPECT_EQ(static_cast<int64_t>(members.size()), topology.DomainDegree(domain));
      EXPECT_EQ(members[topology.DomainRank(domain, rank)], rank);
    }
  }
}

TEST(ParallelTopologyTest, NamesWhatDoesNotFit) {
  const auto message = [](int64_t world, const std::map<std::string, int64_t>& axes) {
    return std::string(ParallelTopology::Create(world, axes).status().message());
  };
  EXPECT_THAT(message(4, {{"shard", 3}}), HasSubstr("must equal replicate(1) * shard(3)"));
  EXPECT_THAT(message(6, {{"shard", -1}, {"tensor", 4}}), HasSubstr("divisible"));
  EXPECT_THAT(message(4, {{"shard", 0}}), HasSubstr("shard = 0"));
  EXPECT_THAT(message(4, {{"shard", -1}, {"tensor", -1}}), HasSubstr("one axis of -1"));
  EXPECT_THAT(message(4, {{"depth", 2}}), HasSubstr("unknown axis depth"));
  EXPECT_THAT(message(4, {{"shard", int64_t{1} << 40}, {"tensor", int64_t{1} << 40}}), HasSubstr("beyond"));
}

}  // namespace
}  // namespace athanor
