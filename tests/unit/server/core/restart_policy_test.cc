#include "server/core/restart_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"

namespace athanor::core {
namespace {

using testing::HasSubstr;

const absl::Time kNow = absl::FromUnixSeconds(1'700'000'000);

RestartDecision Decide(CauseKind kind, const RestartHistory& history = {}, const RestartPolicySpec& policy = {}) {
  return DecideRestart(FailureCause{.kind = kind}, history, policy, kNow);
}

TEST(RestartPolicy, EachCauseHasItsBudget) {
  const struct {
    CauseKind kind;
    const char* name;
    int32_t budget;  // -1: unlimited
  } rows[] = {
      {CauseKind::kUserCode, "user_code", 1},  {CauseKind::kOutOfMemory, "out_of_memory", 1},
      {CauseKind::kSignal, "signal", 10},      {CauseKind::kNodeLost, "node_lost", -1},
      {CauseKind::kHang, "hang", 3},           {CauseKind::kPreempted, "preempted", -1},
      {CauseKind::kData, "data", 1},           {CauseKind::kNanLoss, "nan_loss", 0},
      {CauseKind::kPeerLost, "peer_lost", 10}, {CauseKind::kOurBug, "our_bug", 3},
      {CauseKind::kInvalid, "invalid", 0},     {CauseKind::kLaunchFailed, "launch_failed", 3},
      {CauseKind::kStorage, "storage", -1},
  };
  EXPECT_EQ(std::size(rows), static_cast<size_t>(kCauseKinds - 1));
  for (const auto& row : rows) {
    SCOPED_TRACE(row.name);
    EXPECT_STREQ(ToString(row.kind), row.name);
    EXPECT_EQ(CauseFromName(row.name), row.kind);
    EXPECT_EQ(FactsOf(row.kind).budget, row.budget);
    if (row.budget < 0) {
      EXPECT_TRUE(Decide(row.kind, {.restarts_by_cause = {{row.kind, 1'000'000}}}).retry);
      continue;
    }
    if (row.budget > 0) {
      const RestartDecision left = Decide(row.kind, {.restarts_by_cause = {{row.kind, row.budget - 1}}});
      EXPECT_TRUE(left.retry);
      EXPECT_THAT(left.reason, HasSubstr(absl::StrCat(row.name, " ", row.budget, " of ", row.budget)));
    }
    const RestartDecision over = Decide(row.kind, {.restarts_by_cause = {{row.kind, row.budget}}});
    EXPECT_FALSE(over.retry);
    EXPECT_EQ(over.retry_at, absl::InfiniteFuture());
    EXPECT_THAT(over.reason, HasSubstr(absl::StrCat("gives up: budget of ", row.name, " is used up")));
  }
  EXPECT_EQ(CauseFromName("unspecified"), std::nullopt);
  EXPECT_EQ(CauseFromName("Signal"), std::nullopt);
}

TEST(RestartPolicy, AStorageThatIsAwayIsWaitedForWithAGrowingPause) {
  RestartPolicySpec policy;
  policy.backoff_jitter = 0;
  absl::Duration before;
  for (int32_t times : {0, 1, 2, 5}) {
    const RestartDecision decision =
        Decide(CauseKind::kStorage, {{{CauseKind::kStorage, times}}, /*generations_without_progress=*/99}, policy);
    ASSERT_TRUE(decision.retry) << "no crash loop: " << decision.reason;
    EXPECT_GT(decision.retry_at - kNow, before);
    before = decision.retry_at - kNow;
  }
  EXPECT_EQ(Decide(CauseKind::kStorage, {{{CauseKind::kStorage, 500}}}, policy).retry_at - kNow, policy.backoff_max);
}

TEST(RestartPolicy, OneCauseDoesNotUseUpAnothersBudget) {
  EXPECT_TRUE(Decide(CauseKind::kHang, {.restarts_by_cause = {{CauseKind::kSignal, 10}}}).retry);
}

TEST(RestartPolicy, TheSpecsBudgetWins) {
  RestartPolicySpec policy;
  policy.budgets = {{CauseKind::kNanLoss, 2}, {CauseKind::kSignal, 0}, {CauseKind::kUserCode, -1}};
  EXPECT_TRUE(Decide(CauseKind::kNanLoss, {.restarts_by_cause = {{CauseKind::kNanLoss, 1}}}, policy).retry);
  EXPECT_FALSE(Decide(CauseKind::kSignal, {}, policy).retry);
  EXPECT_TRUE(Decide(CauseKind::kUserCode, {.restarts_by_cause = {{CauseKind::kUserCode, 500}}}, policy).retry);
}

TEST(RestartPolicy, AnExitThatSaysDoNotRestartIsObeyed) {
  const FailureCause cause{.kind = CauseKind::kUserCode, .retryable = false, .exit_code = 78};
  RestartPolicySpec policy;
  policy.budgets = {{CauseKind::kUserCode, -1}};
  const RestartDecision decision = DecideRestart(cause, {}, policy, kNow);
  EXPECT_FALSE(decision.retry);
  EXPECT_THAT(decision.reason, HasSubstr("exit code 78"));
}

TEST(RestartPolicy, TheFirstRestartAfterProgressIsImmediate) {
  const RestartDecision decision = Decide(CauseKind::kSignal, {.generations_without_progress = 1});
  EXPECT_TRUE(decision.retry);
  EXPECT_EQ(decision.retry_at, kNow);
  EXPECT_THAT(decision.reason, HasSubstr("restarts at once"));
}

TEST(RestartPolicy, BackOffDoublesWithinItsBounds) {
  RestartPolicySpec policy;
  policy.backoff_initial = absl::Milliseconds(200);
  policy.backoff_max = absl::Seconds(5);
  policy.backoff_jitter = 0.2;
  policy.max_generations_without_progress = 1000;
  policy.budgets = {{CauseKind::kSignal, -1}};
  bool jittered = false;
  for (int n = 2; n < 100; ++n) {
    const absl::Duration base =
        std::min(absl::Milliseconds(200) * std::ldexp(1.0, std::min(n - 2, 30)), absl::Seconds(5));
    for (uint64_t seed = 0; seed < 20; ++seed) {
      const RestartHistory history{.generations_without_progress = n, .seed = seed};
      const absl::Duration delay = Decide(CauseKind::kSignal, history, policy).retry_at - kNow;
      EXPECT_GE(delay, base) << n;
      EXPECT_LE(delay, base * 1.2) << n;
      jittered = jittered || delay > base * 1.01;
      EXPECT_EQ(delay, Decide(CauseKind::kSignal, history, policy).retry_at - kNow) << "the same seed, the same delay";
    }
  }
  EXPECT_TRUE(jittered);
  policy.backoff_jitter = 0;
  EXPECT_EQ(Decide(CauseKind::kSignal, {.generations_without_progress = 4}, policy).retry_at - kNow,
            absl::Milliseconds(800));
}

TEST(RestartPolicy, ACrashLoopEnds) {
  RestartPolicySpec policy;
  policy.max_generations_without_progress = 3;
  EXPECT_TRUE(Decide(CauseKind::kNodeLost, {.generations_without_progress = 2}, policy).retry);
  const RestartDecision over = Decide(CauseKind::kNodeLost, {.generations_without_progress = 3}, policy);
  EXPECT_FALSE(over.retry);
  EXPECT_THAT(over.reason, HasSubstr("3 generations in a row made no progress (limit 3)"));
}

}  // namespace
}  // namespace athanor::core
