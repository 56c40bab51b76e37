#include "athanor/checkpoint/policy/save_decision.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace athanor {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Action = SaveDecision::Action;
using Room = SaveDecision::Room;

constexpr SaveRules kBySteps = {.by_epoch = false, .interval = 10};

TEST(DecideSave, OnTheIntervalForcedLastAndBest) {
  EXPECT_EQ(DecideSave(kBySteps, {}, {.step = 20}).reason, "on the interval");
  EXPECT_EQ(DecideSave(kBySteps, {.force = true}, {.step = 21}).reason, "forced");
  EXPECT_EQ(DecideSave(kBySteps, {.last_step = true}, {.step = 21}).reason, "last step");
  EXPECT_EQ(DecideSave(kBySteps, {}, {.step = 21, .is_best = true}).reason, "best");
  const SaveDecision none = DecideSave(kBySteps, {}, {.step = 21});
  EXPECT_FALSE(none.save());
  EXPECT_EQ(none.reason, "not due");
  EXPECT_THAT(none.aliases, IsEmpty());
  EXPECT_FALSE(DecideSave(kBySteps, {.save_best = false}, {.step = 21, .is_best = true}).save());
  EXPECT_FALSE(DecideSave({.by_epoch = false, .interval = 0}, {}, {.step = 20}).save());
}

TEST(DecideSave, WhatForbidsASaveForbidsEveryOne) {
  const SaveArguments forced = {.last_step = true, .force = true};
  SaveRules rules = kBySteps;
  rules.load_only = true;
  EXPECT_EQ(DecideSave(rules, forced, {.step = 20}).reason, "load only");
  EXPECT_EQ(DecideSave(rules, forced, {.step = 20, .finite = false}).reason, "the loss is not finite");
  rules.enabled = false;
  EXPECT_EQ(DecideSave(rules, forced, {.step = 20}).reason, "no folder for checkpoints");
  EXPECT_FALSE(DecideSave(rules, forced, {.step = 20}).save());
}

TEST(DecideSave, Names) {
  EXPECT_THAT(DecideSave(kBySteps, {}, {.step = 20}).aliases, ElementsAre("latest", "ckpt-s000000000020"));
  EXPECT_THAT(DecideSave(kBySteps, {.history = false}, {.step = 20}).aliases, ElementsAre("latest"));
  EXPECT_THAT(DecideSave(kBySteps, {.name = "best"}, {.step = 21, .is_best = true}).aliases, ElementsAre("best"));
  const SaveRules by_epochs = {.interval = 2};
  EXPECT_THAT(DecideSave(by_epochs, {}, {.epochs = 4, .step = 77}).aliases, ElementsAre("latest", "ckpt-e000004"));
  EXPECT_THAT(DecideSave(by_epochs, {.epochs = 6}, {.epochs = 3}).aliases, ElementsAre("latest", "ckpt-e000006"));
  // Within a pass none has been completed that could be named.
  EXPECT_THAT(DecideSave(by_epochs, {}, {.epochs = 4, .epoch_fraction = 0.5}).aliases, ElementsAre("latest"));
}

TEST(DecideSave, RoomByWorth) {
  EXPECT_EQ(DecideSave(kBySteps, {}, {.step = 20}).room, Room::kNow);
  EXPECT_EQ(DecideSave(kBySteps, {}, {.step = 20, .is_best = true}).room, Room::kSoon);
  EXPECT_EQ(DecideSave(kBySteps, {.must_wait = true}, {.step = 20, .is_best = true}).room, Room::kWait);
}

TEST(DecideSave, ASavedStepOnlyGetsItsNames) {
  EXPECT_EQ(DecideSave(kBySteps, {}, {.step = 20}).action, Action::kSave);
  EXPECT_EQ(DecideSave(kBySteps, {}, {.step = 20, .saved_step = 20}).action, Action::kName);
  EXPECT_EQ(DecideSave(kBySteps, {}, {.step = 20, .saved_step = 10}).action, Action::kSave);
}

TEST(DecideSave, TheModelAloneTakesAPlaceWhereFilesMayBeReplaced) {
  SaveRules rules = kBySteps;
  rules.model_only = true;
  const SaveDecision last = DecideSave(rules, {.last_step = true}, {.step = 20, .saved_step = 20});
  EXPECT_TRUE(last.model_only);
  EXPECT_EQ(last.action, Action::kSave);
  EXPECT_EQ(DecideSave(rules, {.last_step = true}, {.step = 20, .saved_step = 20, .saved_model_only = true}).action,
            Action::kName);
  EXPECT_FALSE(DecideSave(rules, {}, {.step = 20}).model_only);
  EXPECT_TRUE(CanSaveBeforeLastEvaluation(rules));
  rules.immutable = true;
  EXPECT_EQ(DecideSave(rules, {.last_step = true}, {.step = 20, .saved_step = 20}).action, Action::kName);
  EXPECT_FALSE(CanSaveBeforeLastEvaluation(rules));
}

TEST(IsDue, ByStepsAndByEpochs) {
  EXPECT_TRUE(IsDue(kBySteps, 0, 20, false, -1));
  EXPECT_FALSE(IsDue(kBySteps, 0, 20, false, 20));
  EXPECT_FALSE(IsDue(kBySteps, 0, 21, true, -1));
  const SaveRules by_epochs = {.interval = 2};
  EXPECT_TRUE(IsDue(by_epochs, 4, 77, true, -1));
  EXPECT_FALSE(IsDue(by_epochs, 4, 77, false, -1));
  EXPECT_FALSE(IsDue(by_epochs, 3, 77, true, -1));
  EXPECT_FALSE(IsDue({.interval = 0}, 4, 77, true, -1));
  EXPECT_FALSE(IsDue({.interval = 2, .enabled = false}, 4, 77, true, -1));
}

}  // namespace
}  // namespace athanor
