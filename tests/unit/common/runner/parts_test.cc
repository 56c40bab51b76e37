// The small parts of the runner, one by one.
#include <cmath>
#include <csignal>
#include <future>

#include "athanor/runner/record/score_tracker.h"
#include "athanor/runner/step/model_average.h"
#include "athanor/runner/step/precision.h"
#include "athanor/runner/step/step_meters.h"
#include "athanor/runner/watch/supervisor.h"
#include "athanor/runner/watch/watchdog.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace athanor {
namespace {

TEST(ScoreTracker, KnowsDirectionAndSplit) {
  ScoreTracker loss({}, {"test", "valid", "aux"});
  EXPECT_EQ(loss.key(), "valid.loss");
  EXPECT_TRUE(loss.minimized());
  EXPECT_TRUE(loss.Observe(1, {{"valid.loss", 2.0}}));
  EXPECT_FALSE(loss.Observe(2, {{"valid.loss", std::nan("")}}));
  EXPECT_TRUE(loss.Observe(3, {{"valid.loss", 2.0}})) << "of equal ones the newest";
  EXPECT_EQ(loss.best_step(), 3);
  EXPECT_EQ(loss.since_best(), 2) << "which is no progress";

  ScoreTracker accuracy({.name = "accuracy"}, {"test"});
  EXPECT_EQ(accuracy.key(), "test.accuracy");
  EXPECT_TRUE(accuracy.Observe(1, {{"test.accuracy", 0.5}}));
  EXPECT_FALSE(accuracy.Observe(2, {{"test.accuracy", 0.4}}));
  ScoreTracker again({.name = "accuracy"}, {"test"});
  ASSERT_TRUE(again.FromJson(accuracy.ToJson()).ok());
  EXPECT_EQ(again.best(), 0.5);
  EXPECT_EQ(again.best_step(), 1);
  EXPECT_EQ(again.since_best(), 1);
  EXPECT_FALSE(ScoreTracker({}, {}).Observe(1, {}));
}

TEST(StepMeters, WeighsAndCountsNonfinite) {
  StepMeters meters;
  meters.Add({torch::tensor(1.0f), {{"accuracy", torch::tensor(0.5f)}}}, 3);
  meters.Add({torch::tensor(5.0f), {{"accuracy", torch::tensor(1.0f)}}}, 1);
  meters.Add({torch::tensor(NAN), {{"accuracy", torch::tensor(NAN)}}}, 0);  // padding
  auto means = meters.Means(nullptr);
  ASSERT_TRUE(means.ok());
  EXPECT_DOUBLE_EQ(means->at("loss"), 2.0);
  EXPECT_DOUBLE_EQ(means->at("accuracy"), 0.625);
  for (int i = 0; i < 3; ++i) meters.Add({torch::tensor(NAN), {}}, 1);
  meters.Collect();
  EXPECT_EQ(meters.nonfinite_in_a_row(), 3);
  meters.Add({torch::tensor(1.0f), {}}, 1);
  meters.Collect();
  EXPECT_EQ(meters.nonfinite_in_a_row(), 0);
  EXPECT_EQ(meters.nonfinite_total(), 3);
}

TEST(ModelAverage, FollowsAndSwaps) {
  torch::nn::Linear linear(2, 2);
  torch::NoGradGuard no_grad;
  linear->weight.fill_(1.0);
  ModelAverage average(*linear, 0.75);
  linear->weight.fill_(2.0);
  average.Update();
  {
    ModelAverage::Swap swap(&average);
    EXPECT_FLOAT_EQ(linear->weight[0][0].item<float>(), 1.25f);
  }
  EXPECT_FLOAT_EQ(linear->weight[0][0].item<float>(), 2.0f);
  TrainingState stored;
  average.Store(&stored);
  EXPECT_EQ(stored.replicated.count("ema.weight"), 1u);
  ModelAverage other(*linear, 0.75);
  EXPECT_TRUE(other.Load(stored).ok());
  EXPECT_TRUE(absl::IsDataLoss(other.Load({})));
}

TEST(Precision, AutocastScopeAndScale) {
  torch::Tensor a = torch::ones({4, 4});
  {
    AutocastScope scope("bf16", torch::kCPU);
    EXPECT_EQ(torch::mm(a, a).scalar_type(), torch::kBFloat16);
  }
  EXPECT_EQ(torch::mm(a, a).scalar_type(), torch::kFloat);
  GradientScale scale(true);
  scale.Update(true);
  EXPECT_EQ(scale.scale(), 32768.0);
  for (int i = 0; i < 2000; ++i) scale.Update(false);
  EXPECT_EQ(scale.scale(), 65536.0);
  GradientScale again(true);
  scale.Update(true);
  EXPECT_TRUE(again.FromJson(scale.ToJson()).ok());
  EXPECT_EQ(again.scale(), 32768.0);
  EXPECT_EQ(GradientScale(false).scale(), 1.0);
}

TEST(Supervisor, SignalIsAVoteAndHandlersComeBack) {
  auto supervisor = Supervisor::Install();
  ASSERT_TRUE(supervisor.ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(Supervisor::Install().status()));
  EXPECT_FALSE((*supervisor)->StopRequested());
  raise(SIGTERM);
  EXPECT_TRUE((*supervisor)->StopRequested());
  EXPECT_EQ((*supervisor)->signal(), SIGTERM);
  EXPECT_EXIT(raise(SIGTERM), testing::ExitedWithCode(128 + SIGTERM), "");
  supervisor->reset();
  EXPECT_EXIT(raise(SIGTERM), testing::KilledBySignal(SIGTERM), "");
}

TEST(Watchdog, BitesOnceWhenNothingIsFinished) {
  std::promise<std::string> bitten;
  Watchdog watchdog(absl::Milliseconds(50), [&](const std::string& what) { bitten.set_value(what); });
  watchdog.Feed("evaluation", 17);
  auto future = bitten.get_future();
  ASSERT_EQ(future.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  EXPECT_THAT(future.get(), testing::HasSubstr("after step 17, while: evaluation"));
  Watchdog off(absl::InfiniteDuration(), [](const std::string&) { FAIL(); });
}

}  // namespace
}  // namespace athanor
