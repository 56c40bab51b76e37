#include "athanor/optim/lr_scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_replace.h"

namespace athanor {
namespace {

std::unique_ptr<Optimizer> Sgd() {
  OptimConfig config;
  config.type = "sgd";
  config.lr = 0.2;
  config.param_groups = {{.pattern = "b", .lr = 0.02}};
  return std::move(MakeOptimizer(config,
                                 {{"a", torch::ones({2}).requires_grad_()}, {"b", torch::ones({2}).requires_grad_()}}))
      .value();
}

TEST(LrSchedulerTest, WritesTheRatesOfEveryGroupAndRestoresThem) {
  auto optimizer = Sgd();
  SchedConfig config;
  config.type = "linear";
  config.warmup_steps = 2;
  auto scheduler = LrScheduler::Make(config, {.steps = 20, .epochs = 2}, optimizer.get());
  ASSERT_TRUE(scheduler.ok()) << scheduler.status();
  EXPECT_EQ((*scheduler)->interval(), SchedInterval::kStep);
  EXPECT_EQ((*scheduler)->schedule().options().total_steps, 20);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE((*scheduler)->Step().ok());
  EXPECT_NEAR(optimizer->lr(1) / optimizer->lr(0), 10, 1e-6);

  auto other = Sgd();
  auto restored = LrScheduler::Make(config, {.steps = 20}, other.get());
  ASSERT_TRUE((*restored)->LoadStateDict((*scheduler)->StateDict()).ok());
  EXPECT_EQ(other->lr(0), optimizer->lr(0));
  EXPECT_EQ(other->lr(1), optimizer->lr(1));
}

TEST(LrSchedulerTest, EpochSchedulesUseTheEpochBudget) {
  auto optimizer = Sgd();
  SchedConfig config;
  config.type = "cosine";
  config.interval = "epoch";
  auto scheduler = LrScheduler::Make(config, {.steps = 1000, .epochs = 10}, optimizer.get());
  ASSERT_TRUE(scheduler.ok());
  EXPECT_EQ((*scheduler)->schedule().options().total_steps, 10);
  config.interval = "step";
  EXPECT_EQ(LrScheduler::Make(config, {}, optimizer.get()).status().message(),
            "sched.total_steps: found 0; allowed: integer > 0");
}

TEST(LrSchedulerTest, TypesInCapitalsAreTheSame) {
  for (const char* type : {"linear", "LINEAR", "Cosine", "ONE-CYCLE"}) {
    auto optimizer = Sgd(), other = Sgd();
    SchedConfig config, plain;
    config.type = type;
    config.max_lr = plain.max_lr = 0.5;
    plain.type = absl::StrReplaceAll(absl::AsciiStrToLower(type), {{"-", "_"}});
    auto scheduler = *LrScheduler::Make(config, {.steps = 20}, optimizer.get());
    auto expected = *LrScheduler::Make(plain, {.steps = 20}, other.get());
    for (int i = 0; i < 15; ++i) {
      EXPECT_EQ(optimizer->lr(0), other->lr(0)) << type;
      ASSERT_TRUE(scheduler->Step().ok());
      ASSERT_TRUE(expected->Step().ok());
    }
  }
}

TEST(LrSchedulerTest, OneCycleMovesTheMomentumToo) {
  auto optimizer = Sgd();
  SchedConfig config;
  config.type = "one_cycle";
  config.max_lr = 0.5;
  auto scheduler = LrScheduler::Make(config, {.steps = 10}, optimizer.get());
  ASSERT_TRUE(scheduler.ok());
  EXPECT_NEAR(optimizer->lr(0), 0.5 / 25, 1e-15);
  EXPECT_DOUBLE_EQ(optimizer->group_options(0).momentum, 0.95);
}

TEST(LrSchedulerTest, NoTypeNoScheduler) {
  auto optimizer = Sgd();
  auto scheduler = LrScheduler::Make({}, {}, optimizer.get());
  ASSERT_TRUE(scheduler.ok());
  EXPECT_EQ(*scheduler, nullptr);
}

}  // namespace
}  // namespace athanor
