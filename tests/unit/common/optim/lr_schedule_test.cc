#include "athanor/optim/lr_schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <iostream>

namespace athanor {
namespace {

nlohmann::json ReadJson(const std::string& name) {
  std::ifstream file(std::string(ATHANOR_SOURCE_DIR) + "/tests/data/" + name);
  EXPECT_TRUE(file) << name;
  return nlohmann::json::parse(file);
}

template <class T>
void Take(const nlohmann::json& json, const char* key, T* out) {
  if (!json.contains(key)) return;
  if constexpr (requires {
                  typename T::value_type;
                  T(std::nullopt);
                }) {
    *out = json[key].get<typename T::value_type>();
  } else {
    *out = json[key].get<T>();
  }
}

LrScheduleOptions OptionsFrom(const nlohmann::json& args, const std::string& type) {
  LrScheduleOptions o;
  o.type = type;
  Take(args, "total_steps", &o.total_steps);
  Take(args, "warmup_steps", &o.warmup_steps);
  Take(args, "cooldown_steps", &o.cooldown_steps);
  Take(args, "final_lr", &o.final_lr);
  Take(args, "final_lr_ratio", &o.final_lr_ratio);
  Take(args, "min_lr", &o.min_lr);
  Take(args, "scaling", &o.scaling);
  Take(args, "gamma", &o.gamma);
  Take(args, "step_size", &o.step_size);
  Take(args, "milestones", &o.milestones);
  Take(args, "T_max", &o.t_max);
  Take(args, "T_0", &o.t_0);
  Take(args, "T_mult", &o.t_mult);
  Take(args, "eta_min", &o.eta_min);
  Take(args, "max_lr", &o.max_lr);
  Take(args, "base_lr", &o.base_lr);
  Take(args, "step_size_up", &o.step_size_up);
  Take(args, "step_size_down", &o.step_size_down);
  Take(args, "pct_start", &o.pct_start);
  Take(args, "anneal_strategy", &o.anneal_strategy);
  Take(args, "three_phase", &o.three_phase);
  Take(args, "cycle_momentum", &o.cycle_momentum);
  Take(args, "mode", &o.mode);
  Take(args, "factor", &o.factor);
  Take(args, "patience", &o.patience);
  Take(args, "threshold", &o.threshold);
  Take(args, "threshold_mode", &o.threshold_mode);
  Take(args, "cooldown", &o.cooldown);
  return o;
}

void ExpectClose(double found, double wanted, const std::string& where) {
  EXPECT_NEAR(found, wanted, std::abs(wanted) * 1e-12 + 1e-18) << where;
}

TEST(LrScheduleTest, ReplaysEveryCaseOfTheOracle) {
  const nlohmann::json oracle = ReadJson("oracle/lr_scheduler.shared.json");
  int replayed = 0, refused = 0;
  for (const nlohmann::json& item : oracle["cases"]) {
    const std::string name = item["name"];
    const auto bases = item["base_lrs"].get<std::vector<double>>();
    absl::StatusOr<LrSchedule> schedule =
        LrSchedule::Make(OptionsFrom(item["args"], item["args"].value("method", "cosine")), bases);
    if (item.contains("error")) {
      EXPECT_EQ(schedule.status().code(), absl::StatusCode::kInvalidArgument) << name;
      ++refused;
      continue;
    }
    ASSERT_TRUE(schedule.ok()) << name << ": " << schedule.status();
    EXPECT_EQ(*schedule->options().warmup_steps, item["effective"]["warmup_steps"]) << name;
    EXPECT_EQ(*schedule->options().cooldown_steps, item["effective"]["cooldown_steps"]) << name;
    EXPECT_EQ(*schedule->options().scaling, item["effective"]["scaling"].get<std::string>()) << name;
    for (size_t k = 0; k < item["lrs"].size(); ++k) {
      if (item.contains("resume") && item["resume"]["after_steps"] == k) {
        LrSchedule fresh = *LrSchedule::Make(schedule->options(), bases);
        ASSERT_TRUE(fresh.LoadStateDict(nlohmann::json::parse(schedule->StateDict().dump())).ok());
        schedule = fresh;
      }
      for (size_t g = 0; g < bases.size(); ++g) {
        ExpectClose(schedule->lrs()[g], item["lrs"][k][g], name + " step " + std::to_string(k));
      }
      ASSERT_TRUE(schedule->Step().ok());
    }
    ++replayed;
  }
  std::cout << "lr_scheduler oracle: " << replayed << " cases replayed, " << refused << " refused as recorded\n";
  EXPECT_EQ(replayed + refused, static_cast<int>(oracle["cases"].size()));
}

TEST(LrScheduleTest, FollowsTheFrameworkSchedules) {
  const nlohmann::json reference = ReadJson("schedule_reference.json");
  for (const nlohmann::json& item : reference["cases"]) {
    absl::StatusOr<LrSchedule> schedule =
        LrSchedule::Make(OptionsFrom(item["options"], item["type"]), {reference["base_lr"].get<double>()});
    ASSERT_TRUE(schedule.ok()) << item["type"] << schedule.status();
    for (size_t k = 0; k < item["lrs"].size(); ++k) {
      const std::string where = item["type"].get<std::string>() + item["options"].dump() + " step " + std::to_string(k);
      EXPECT_NEAR(schedule->lrs()[0], item["lrs"][k].get<double>(), 1e-12) << where;
      if (schedule->momentum()) {
        EXPECT_NEAR(*schedule->momentum(), item["momentum"][k].get<double>(), 1e-12) << where;
      }
      if (k == 9) {  // a restored schedule goes on alike
        LrSchedule fresh = *LrSchedule::Make(schedule->options(), {0.5});
        ASSERT_TRUE(fresh.LoadStateDict(nlohmann::json::parse(schedule->StateDict().dump())).ok());
        schedule = fresh;
      }
      if (k + 1 == item["lrs"].size()) break;
      std::optional<double> metric;
      if (schedule->needs_metric()) metric = reference["metrics"][k].get<double>();
      ASSERT_TRUE(schedule->Step(metric).ok());
    }
  }
  std::cout << "framework schedules: " << reference["cases"].size() << " cases\n";
}

TEST(LrScheduleTest, NamesWhatIsWrong) {
  const auto message = [](LrScheduleOptions o) { return std::string(LrSchedule::Make(o, {0.1}).status().message()); };
  EXPECT_THAT(message({.type = "poly"}), testing::StartsWith("sched.type: found \"poly\"; allowed: linear, cosine, "));
  EXPECT_EQ(message({.type = "cosine"}), "sched.total_steps: found 0; allowed: integer > 0");
  EXPECT_EQ(message({.type = "exponential"}), "sched.gamma: missing: exponential needs it");
  EXPECT_EQ(message({.type = "one_cycle", .total_steps = 5}), "sched.max_lr: missing: one_cycle needs it");
}

TEST(LrScheduleTest, RefusesAForeignState) {
  LrSchedule schedule = *LrSchedule::Make({.type = "cosine", .total_steps = 10}, {0.1});
  EXPECT_FALSE(schedule.LoadStateDict({{"type", "linear"}, {"position", 1}, {"base_lrs", {0.1}}}).ok());
  EXPECT_FALSE(schedule.LoadStateDict({{"type", "cosine"}, {"position", 1}, {"base_lrs", {0.1, 0.2}}}).ok());
  EXPECT_FALSE(schedule.LoadStateDict(nlohmann::json::object()).ok());
  EXPECT_EQ(schedule.position(), 0);
}

TEST(LrScheduleTest, PlateauNeedsItsMetric) {
  LrSchedule schedule = *LrSchedule::Make({.type = "reduce_on_plateau"}, {0.1});
  EXPECT_FALSE(schedule.Step().ok());
  EXPECT_TRUE(schedule.Step(std::nan("")).ok());
}

}  // namespace
}  // namespace athanor
