#include "athanor/data/distributed_sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace athanor {
namespace {

std::vector<int64_t> AllOf(DistributedSampler& sampler) {
  return sampler.Indices(0, sampler.size());
}

TEST(DistributedSamplerTest, EverySampleOnceOverTheRanks) {
  for (const int64_t size : {1, 2, 7, 64, 101}) {
    for (const int world : {1, 2, 3, 5, 8}) {
      for (const bool shuffle : {false, true}) {
        std::map<int64_t, int> counts;
        int64_t length = -1;
        for (int rank = 0; rank < world; ++rank) {
          DistributedSampler sampler({.dataset_size = size,
                                      .world_size = world,
                                      .rank = rank,
                                      .shuffle = shuffle,
                                      .seed = 3,
                                      .padding = SamplerPadding::kNone});
          if (length < 0) length = sampler.size();
          EXPECT_EQ(sampler.size(), length);
          for (int64_t index : AllOf(sampler)) ++counts[index];
        }
        const int64_t padding = length * world - size;
        EXPECT_EQ(counts[-1], padding);
        EXPECT_EQ(static_cast<int64_t>(counts.size()), size + 1);
        for (int64_t i = 0; i < size; ++i) EXPECT_EQ(counts[i], 1) << i;
      }
    }
  }
}

TEST(DistributedSamplerTest, RepeatsFromTheStartOrDropsTheTail) {
  DistributedSampler padded({.dataset_size = 5, .world_size = 4, .rank = 3, .shuffle = false});
  EXPECT_THAT(AllOf(padded), testing::ElementsAre(3, 2));  // 5, 6, 7 become 0, 1, 2
  DistributedSampler dropped({.dataset_size = 5, .world_size = 4, .rank = 3, .shuffle = false, .drop_last = true});
  EXPECT_THAT(AllOf(dropped), testing::ElementsAre(3));
  DistributedSampler tiny({.dataset_size = 1, .world_size = 4, .rank = 3, .shuffle = true});
  EXPECT_THAT(AllOf(tiny), testing::ElementsAre(0));
}

TEST(DistributedSamplerTest, ShufflesAsPyTorchDoes) {
  // list(torch.utils.data.DistributedSampler(range(10), num_replicas=2, rank=0, seed=7)) with set_epoch(0) and
  // set_epoch(3)
  DistributedSampler sampler({.dataset_size = 10, .world_size = 2, .rank = 0, .seed = 7});
  EXPECT_THAT(AllOf(sampler), testing::ElementsAre(5, 3, 1, 9, 8));
  sampler.StartEpoch(3);
  EXPECT_THAT(AllOf(sampler), testing::ElementsAre(7, 6, 3, 9, 2));
}

TEST(DistributedSamplerTest, ContinuesMidEpochAtTheSameOrderAndDividesTheRestAnew) {
  DistributedSampler whole({.dataset_size = 23, .world_size = 2, .rank = 1, .seed = 1});
  DistributedSampler rest({.dataset_size = 23, .world_size = 2, .rank = 1, .seed = 1});
  rest.StartEpoch(0, 8);
  EXPECT_EQ(rest.Indices(0, 100), whole.Indices(4, 100));

  DistributedSampler order({.dataset_size = 23, .seed = 1});
  std::vector<int64_t> seen = order.Indices(0, 8);  // by two ranks; three go on
  for (int rank = 0; rank < 3; ++rank) {
    DistributedSampler sampler(
        {.dataset_size = 23, .world_size = 3, .rank = rank, .seed = 1, .padding = SamplerPadding::kNone});
    sampler.StartEpoch(0, 8);
    for (int64_t index : AllOf(sampler)) seen.push_back(index);
  }
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(seen.size(), 23u);
  for (int64_t i = 0; i < 23; ++i) EXPECT_EQ(seen[static_cast<size_t>(i)], i);
}

}  // namespace
}  // namespace athanor
