#include "athanor/checkpoint/policy/retention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace athanor {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(ChooseRetention, KeepsTheNewest) {
  const std::vector<RetainedCheckpoint> all = {{.step = 10}, {.step = 40}, {.step = 20}, {.step = 30}};
  EXPECT_THAT(ChooseRetention(all, 2).remove, ElementsAre(20, 10));
  EXPECT_THAT(ChooseRetention(all, 2).beyond, ElementsAre(20, 10));
  EXPECT_THAT(ChooseRetention(all, 4).remove, IsEmpty());
  EXPECT_THAT(ChooseRetention(all, 0).remove, IsEmpty());
}

TEST(ChooseRetention, WhatIsPinnedTakesAPlaceAndStaysBeyondThem) {
  const std::vector<RetainedCheckpoint> all = {
      {.step = 40, .pinned = true}, {.step = 30}, {.step = 20, .pinned = true}, {.step = 10}};
  const RetentionDecision decision = ChooseRetention(all, 1);
  EXPECT_THAT(decision.remove, ElementsAre(30, 10));
  EXPECT_THAT(decision.beyond, ElementsAre(30, 20, 10));
}

TEST(ChooseRetention, WhatHasNoPlaceStaysUnlessItMayGo) {
  const std::vector<RetainedCheckpoint> all = {{.step = 30},
                                               {.step = 20, .takes_place = false, .pinned = true},
                                               {.step = 15, .expendable = true},
                                               {.step = 10, .pinned = true, .expendable = true},
                                               {.step = 5}};
  EXPECT_THAT(ChooseRetention(all, 2).remove, ElementsAre(15));
}

// Whatever the input: nothing pinned goes, what goes is no newer than what it makes room for, and places are used.
TEST(ChooseRetention, HoldsForAnyInput) {
  for (uint32_t seed = 0; seed < 2000; ++seed) {
    std::mt19937 random(seed);
    std::vector<RetainedCheckpoint> all;
    for (int64_t step = 1; step <= static_cast<int64_t>(random() % 12); ++step)
      all.push_back({.step = step,
                     .takes_place = random() % 4 != 0,
                     .pinned = random() % 3 == 0,
                     .expendable = random() % 6 == 0});
    std::shuffle(all.begin(), all.end(), random);
    const int keep = static_cast<int>(random() % 5);
    const RetentionDecision decision = ChooseRetention(all, keep);
    const auto removed = [&](int64_t step) {
      return std::count(decision.remove.begin(), decision.remove.end(), step) > 0;
    };
    int places = 0, newest_removed = 0;
    for (const RetainedCheckpoint& one : all) {
      EXPECT_FALSE(one.pinned && removed(one.step)) << "seed " << seed;
      if (keep == 0) EXPECT_FALSE(removed(one.step));
      if (one.takes_place && !one.expendable && removed(one.step))
        newest_removed = std::max(newest_removed, static_cast<int>(one.step));
    }
    for (const RetainedCheckpoint& one : all)
      places += one.takes_place && !one.expendable && one.step > newest_removed ? 1 : 0;
    if (newest_removed > 0) EXPECT_GE(places, keep) << "seed " << seed;
  }
}

TEST(ByNames, HistoryAndNamelessTakePlacesAndOtherNamesPin) {
  NamedCheckpoints named;
  named.steps = {1, 2, 3, 4, 5, 6};
  named.aliases = {{"ckpt-e000001", 1}, {"ckpt-e000002", 2}, {"ckpt-e000003", 3},
                   {"best", 1},         {"seed", 4},         {"latest", 6}};
  named.abandoned = {5};
  const RetentionDecision decision = ChooseRetention(ByNames(named), 1);
  EXPECT_THAT(decision.remove, ElementsAre(5, 2));  // 5 lost its name; 1 is the best; 4 and 6 have names of their own
  EXPECT_THAT(decision.beyond, ElementsAre(2, 1));  // so that their names of the history go
}

TEST(ByNames, OneWithoutAnyNameIsHistory) {
  NamedCheckpoints named;
  named.steps = {1, 2, 3};
  EXPECT_THAT(ChooseRetention(ByNames(named), 2).remove, ElementsAre(1));
}

}  // namespace
}  // namespace athanor
