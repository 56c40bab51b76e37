// Configuration as users write it: what is read, what is said about mistakes, what the manual says.
#include "athanor/config/config_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "absl/strings/str_replace.h"

namespace athanor {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::IsEmpty;

json Minimal() {
  return {{"steps", 100}, {"optim", {{"type", "adamw"}, {"lr", 0.001}}}};
}

std::string Lines(const std::vector<FieldProblem>& problems) {
  std::string text;
  for (const FieldProblem& problem : problems) text += problem.path + ": " + problem.message + "\n";
  return text;
}

TEST(RunnerConfigTest, ReadsAndWritesBack) {
  json file = Minimal();
  file["precision"] = "BFloat16";
  file["scheduler"] = {{"type", "Multi-Step"}, {"milestones", {10, 20}}};
  file["dataloader"] = {{"batch_size", 8}, {"val", {{"batch_size", 64}}}};
  file["steps"] = 1e2;
  RunnerConfig config;
  EXPECT_EQ(Lines(CheckRunnerConfig(file, &config)), "");
  EXPECT_EQ(config.precision, "bf16");
  EXPECT_EQ(config.sched.type, "multistep");
  EXPECT_EQ(config.steps, 100);
  EXPECT_EQ(config.dataloader.For("val").batch_size, 64);
  EXPECT_EQ(config.dataloader.For("train").batch_size, 8);
  RunnerConfig again;
  EXPECT_EQ(Lines(CheckRunnerConfig(ToJson(config), &again)), "");
  EXPECT_EQ(ToJson(again), ToJson(config));
  EXPECT_EQ(Lines(CheckRunnerConfig(config)), "");
}

struct Wrong {
  const char* path;
  const char* value;
  const char* problem;  // all lines
};

class WrongConfigTest : public testing::TestWithParam<Wrong> {};

TEST_P(WrongConfigTest, IsNamedExactly) {
  json file = Minimal();
  ASSERT_TRUE(ApplyOverride(file, GetParam().path, GetParam().value).ok());
  EXPECT_EQ(Lines(CheckRunnerConfig(file, nullptr)), std::string(GetParam().problem) + "\n");
}

INSTANTIATE_TEST_SUITE_P(
    All, WrongConfigTest,
    testing::Values(
        Wrong{"steps", "\"12\"", "steps: found \"12\" (string); allowed: integer >= 1"},
        Wrong{"steps", "0", "steps: found 0 (integer); allowed: integer >= 1"},
        Wrong{"steps", "1.5", "steps: found 1.5 (number); allowed: integer >= 1"},
        Wrong{"steps", "18446744073709551615", "steps: found 18446744073709551615 (integer); allowed: integer >= 1"},
        Wrong{"steps", "null", "steps: missing: set steps or epochs"},
        Wrong{"epochs", "3", "epochs: found steps = 100 and epochs = 3; allowed: one of the two"},
        Wrong{"accum_steps", "0", "accum_steps: found 0 (integer); allowed: integer >= 1"},
        Wrong{"accum_steps", "null", "accum_steps: found null; allowed: integer >= 1"},
        Wrong{"deterministic", "1", "deterministic: found 1 (integer); allowed: true or false"},
        Wrong{"precision", "fp12",
              "precision: found \"fp12\" (string); allowed: one of fp32, bf16, fp16, fp8; did you mean \"fp32\"?"},
        Wrong{"precision", "16", "precision: found 16 (integer); allowed: one of fp32, bf16, fp16, fp8"},
        Wrong{"max_grad_norm", "0", "max_grad_norm: found 0 (integer); allowed: number > 0"},
        Wrong{"max_grad_norm", "big", "max_grad_norm: found \"big\" (string); allowed: number > 0"},
        Wrong{"seed", "-1", "seed: found -1 (integer); allowed: integer >= 0"},
        Wrong{"optim.lr", "-0.1", "optim.lr: found -0.1 (number); allowed: number >= 0"},
        Wrong{"optim.lr", "[0.1]", "optim.lr: found [0.1] (list); allowed: number >= 0"},
        Wrong{"optim.type", "adamm",
              "optim.type: found \"adamm\" (string); allowed: one of sgd, adam, adamw, adadelta, adagrad, adamax, "
              "asgd, nadam, "
              "radam, rmsprop, rprop, lion, muon, lbfgs, adafactor; did you mean \"adam\"?"},
        Wrong{"optim.type", "",
              "optim.type: missing beside \"lr\"; allowed: one of sgd, adam, adamw, adagrad, nadam, radam, rmsprop, "
              "adadelta, "
              "adamax, asgd, rprop, lbfgs, adafactor, lion, muon"},
        Wrong{"optim.betas", "[0.9]", "optim.betas: found 1 numbers; allowed: 2"},
        Wrong{"optim.betas", "[0.9, 1.0]", "optim.betas[1]: found 1 (number); allowed: number >= 0 and < 1"},
        Wrong{"optim.nesterov", "true",
              "optim.nesterov: not an option of adamw; allowed: lr, weight_decay, param_groups, betas, eps, "
              "amsgrad"},
        Wrong{"optim", "3", "optim: found 3 (integer); allowed: a mapping"},
        Wrong{"optim.param_groups", "[{}]", "optim.param_groups[0].pattern: missing; allowed: a regular expression"},
        Wrong{"optim.param_groups", "{}", "optim.param_groups: found {} (mapping); allowed: a list"},
        Wrong{"optim.param_groups", "[{\"pattern\": \"a\", \"lr\": 1, \"lr_multiplier\": 2}]",
              "optim.param_groups[0].lr_multiplier: excludes \"lr\": set one of the two"},
        Wrong{"optim.param_groups", "[{\"pattern\": \"a\", \"weight_decay_multiplier\": 2}]",
              "optim.param_groups[0].weight_decay_multiplier: needs optim.weight_decay"},
        Wrong{"optim.param_groups", "[{\"pattern\": \"a\", \"momentum\": 0.5}]",
              "optim.param_groups[0].momentum: adamw has no momentum"},
        Wrong{"optim.param_groups", "[{\"patern\": \"a\"}]",
              "optim.param_groups[0].patern: unknown key, did you mean \"pattern\"? allowed: pattern, lr, "
              "lr_multiplier, weight_decay, "
              "weight_decay_multiplier, beta1, beta2, eps, momentum, dampening, "
              "nesterov, amsgrad, alpha"},
        Wrong{"score.direction", "up", "score.direction: found \"up\" (string); allowed: one of auto, min, max"},
        Wrong{"score.nam", "x", "score.nam: unknown key, did you mean \"name\"? allowed: split, name, direction"},
        Wrong{"evaluate.intervall", "5",
              "evaluate.intervall: unknown key, did you mean \"interval\"? allowed: interval, splits"},
        Wrong{"evaluate.splits", "val", "evaluate.splits: found \"val\" (string); allowed: a list"},
        Wrong{"evaluate.splits", "[1]", "evaluate.splits[0]: found 1 (integer); allowed: string"},
        Wrong{"ema.decay", "1", "ema.decay: found 1 (integer); allowed: number >= 0 and < 1"},
        Wrong{"ema.zzzzzzzz", "1", "ema.zzzzzzzz: unknown key; allowed: enabled, decay"},
        Wrong{"comm.bucket_mb", "0", "comm.bucket_mb: found 0 (integer); allowed: number > 0 and <= 4096"},
        Wrong{"dataloader.num_worker", "2",
              "dataloader.num_worker: unknown key, did you mean \"num_workers\"? allowed: batch_size, "
              "shuffle, drop_last, num_workers, prefetch_factor, in_order, persistent_workers, snapshot_every_n_steps, "
              "pin_memory, pin_memory_device, multiprocessing_context, timeout, on_damage, max_damaged, seed"},
        Wrong{"dataloader.val.batch_size", "0", "dataloader.val.batch_size: found 0 (integer); allowed: integer >= 1"},
        Wrong{"checkpoint.export_dtype", "fp16", "checkpoint.export_dtype: needs checkpoint.last_save_model_only"},
        Wrong{"checkpoint.keep_latest_k", "-1", "checkpoint.keep_latest_k: found -1 (integer); allowed: integer >= 0"},
        Wrong{"sched.type", "cosin",
              "sched.type: found \"cosin\" (string); allowed: one of linear, cosine, constant, step, multistep, "
              "exponential, cosine_annealing, cosine_warm_restarts, one_cycle, cyclic, reduce_on_plateau; did you "
              "mean \"cosine\"?"},
        Wrong{"sched", "{\"type\": \"step\"}", "sched.step_size: missing: step needs it"},
        Wrong{"sched", "{\"type\": \"step\", \"step_size\": 2, \"warmup_steps\": 3}",
              "sched.warmup_steps: not an option of step; allowed: interval, step_size, gamma"},
        Wrong{"sched", "{\"type\": \"cosine\", \"warmup_steps\": 90}",
              "sched.cooldown_steps: found warm-up 90 + cool-down 20; allowed: at most the 100 steps of the schedule "
              "together"},
        Wrong{"sched", "{\"type\": \"cosine\", \"final_lr\": 0.1, \"final_lr_ratio\": 0.1}",
              "sched.final_lr: excludes \"final_lr_ratio\": set one of the two"},
        Wrong{"sched", "{\"type\": \"reduce_on_plateau\", \"interval\": \"step\"}",
              "sched.interval: found \"step\"; allowed for reduce_on_plateau: epoch"},
        Wrong{"sched", "{\"type\": \"multistep\", \"milestones\": [5, 2]}",
              "sched.milestones: found 5, 2; allowed: ascending"},
        Wrong{"scheduler", "{\"type\": \"cyclic\", \"base_lr\": 1, \"max_lr\": 0.1}",
              "sched.base_lr: found 1; allowed: at most max_lr = 0.1"},
        Wrong{
            "sched", "{\"type\": \"cosine\", \"total_steps\": 9223372036854775807, \"warmup_ratio\": 1}",
            "sched.cooldown_steps: found warm-up 9223372036854775807 + cool-down 1844674407370955161; allowed: at most "
            "the 9223372036854775807 steps of the schedule together"},
        Wrong{"optimizer", "{\"type\": \"sgd\"}", "optimizer: a second spelling of \"optim\": set one of the two"}));

TEST(RunnerConfigTest, FindsAllMistakesAtOnce) {
  const json file = {{"stepz", 5}, {"optim", {{"type", "sgd"}, {"lr", "x"}, {"momentun", 1}}}, {"ema", {{"decay", 2}}}};
  const std::string lines = Lines(CheckRunnerConfig(file, nullptr));
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 5) << lines;  // and no steps
  EXPECT_THAT(ToStatus(CheckRunnerConfig(file, nullptr)).message(),
              testing::HasSubstr("stepz: unknown key, did you mean \"steps\"?"));
  EXPECT_EQ(Lines(CheckRunnerConfig(json::array(), nullptr)), ": found [] (list); allowed: a mapping\n");
}

TEST(RunnerConfigTest, EveryFieldHasARule) {
  const std::string manual = ConfigurationMarkdown();
  std::vector<std::pair<std::string, json>> left = {{"", ToJson(RunnerConfig{})}};
  while (!left.empty()) {
    const auto [path, value] = left.back();
    left.pop_back();
    for (const auto& [key, below] : value.items()) {
      const std::string full = path.empty() ? key : path + "." + key;
      EXPECT_THAT(manual, testing::HasSubstr("`" + full + "`"));
      if (below.is_object()) left.emplace_back(full, below);
    }
  }
}

TEST(RunnerConfigTest, ManualIsCurrent) {
  const std::string path = std::string(ATHANOR_SOURCE_DIR) + "/docs/configuration.md";
  if (std::getenv("ATHANOR_UPDATE_DOCS") != nullptr) std::ofstream(path) << ConfigurationMarkdown();
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_TRUE(text.str() == ConfigurationMarkdown())
      << "run this test with ATHANOR_UPDATE_DOCS=1 to write docs/configuration.md";
}

TEST(ResumeDifferencesTest, IsTwoSidedAndKnowsWhatMayChange) {
  RunnerConfig before, now;
  ASSERT_THAT(CheckRunnerConfig(Minimal(), &before), IsEmpty());
  now = before;
  EXPECT_THAT(ResumeDifferences(ToJson(before), now), IsEmpty());
  now.steps = 500;
  now.log_interval = 7;
  now.dataloader.num_workers = 4;
  now.dataloader.splits["val"].num_workers = 2;
  now.checkpoint.interval = 5;
  EXPECT_THAT(ResumeDifferences(ToJson(before), now), IsEmpty());
  now.optim.lr = 0.01;
  EXPECT_THAT(ResumeDifferences(ToJson(before), now), ElementsAre("optim.lr: saved 0.001, now 0.01"));
  now = before;
  before.max_grad_norm = 1;
  EXPECT_THAT(ResumeDifferences(ToJson(before), now), ElementsAre("max_grad_norm: saved 1, now null"));
  EXPECT_THAT(ResumeDifferences(ToJson(now), before), ElementsAre("max_grad_norm: saved null, now 1"));
}

TEST(ResumeDifferencesTest, FillsInDefaultsAndReportsForeignKeys) {
  RunnerConfig now;
  ASSERT_THAT(CheckRunnerConfig(Minimal(), &now), IsEmpty());
  json saved = Minimal();
  EXPECT_THAT(ResumeDifferences(saved, now), IsEmpty());  // silent keys had the defaults
  saved["accum_steps"] = 1.0;                             // equal by value
  EXPECT_THAT(ResumeDifferences(saved, now), IsEmpty());
  saved["turbo"] = true;
  EXPECT_THAT(ResumeDifferences(saved, now),
              ElementsAre(testing::StartsWith("turbo: saved by another version: unknown key")));
}

TEST(ApplyOverrideTest, ReadsLiteralsAndWalks) {
  json file = {{"optim", {{"param_groups", {{{"pattern", "a"}}}}}}, {"steps", 3}};
  EXPECT_TRUE(ApplyOverride(file, "optim.lr", "1e-3").ok());
  EXPECT_TRUE(ApplyOverride(file, "optim.eps", ".5").ok());
  EXPECT_TRUE(ApplyOverride(file, "optim.type", "adamw").ok());
  EXPECT_TRUE(ApplyOverride(file, "optim.betas", "[0.9, 0.95]").ok());
  EXPECT_TRUE(ApplyOverride(file, "optim.param_groups.0.lr", "2").ok());
  EXPECT_TRUE(ApplyOverride(file, "ema.enabled", "true").ok());
  EXPECT_TRUE(ApplyOverride(file, "score.name", "inf").ok());
  EXPECT_EQ(file["optim"], json({{"lr", 1e-3},
                                 {"eps", 0.5},
                                 {"type", "adamw"},
                                 {"betas", {0.9, 0.95}},
                                 {"param_groups", {{{"pattern", "a"}, {"lr", 2}}}}}));
  EXPECT_EQ(file["ema"]["enabled"], true);
  EXPECT_EQ(file["score"]["name"], "inf");
  EXPECT_EQ(ApplyOverride(file, "a..b", "1").message(), "override a..b: empty part in the path");
  EXPECT_FALSE(file.contains("a")) << "nothing half-done stays";
  EXPECT_EQ(ApplyOverride(file, "name", "\xff").message(), "override name: not UTF-8");
  EXPECT_FALSE(ApplyOverride(file, "a" + absl::StrReplaceAll(std::string(1000, '.'), {{".", ".a"}}), "1").ok());
  EXPECT_EQ(ApplyOverride(file, "steps.x", "1").message(),
            "override steps.x: \"steps\" is 3 (integer), nothing can be set below it");
  EXPECT_EQ(ApplyOverride(file, "optim.param_groups.7.lr", "1").message(),
            "override optim.param_groups.7.lr: \"7\" is no element of the list \"optim.param_groups\"; allowed: 0 to 1 "
            "exclusive");
}

}  // namespace
}  // namespace athanor
