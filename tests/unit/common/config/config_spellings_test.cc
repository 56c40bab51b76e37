#include "athanor/config/config_spellings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "athanor/config/config_loader.h"

namespace athanor {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;

json Minimal() {
  return {{"steps", 100}, {"optim", {{"type", "sgd"}, {"lr", 0.1}}}};
}

RunnerConfig Read(const json& changes) {
  json file = Minimal();
  file.update(changes);
  RunnerConfig config;
  const auto problems = CheckRunnerConfig(file, &config);
  EXPECT_THAT(problems, IsEmpty()) << ToStatus(problems);
  return config;
}

TEST(ConfigSpellingsTest, TheReferencesNamesMeanTheSame) {
  const RunnerConfig config = Read({{"score_split", "val"},
                                    {"score_name", "f1"},
                                    {"evaluate_splits", "val"},
                                    {"train_splits", "train"},
                                    {"backend", "gloo"},
                                    {"init_method", "tcp://127.0.0.1:2345"}});
  EXPECT_EQ(config.score.split, "val");
  EXPECT_EQ(config.score.name, "f1");
  EXPECT_THAT(config.evaluate.splits, testing::ElementsAre("val"));
  EXPECT_THAT(config.train_splits, testing::ElementsAre("train"));
  EXPECT_EQ(config.comm.backend, "gloo");
  EXPECT_EQ(config.comm.init_method, "tcp://127.0.0.1:2345");
}

TEST(ConfigSpellingsTest, NeverAndOneOfEach) {
  const RunnerConfig config = Read({{"log_interval", -1},
                                    {"checkpoint", {{"interval", -1}, {"exclude_from_loading", "lr_scheduler"}}},
                                    {"patience", std::numeric_limits<double>::infinity()},
                                    {"parallel", {{"axes", {{"shard", 1}, {"pipeline", 1}}}}}});
  EXPECT_EQ(config.log_interval, 0);
  EXPECT_EQ(config.checkpoint.interval, 0);
  EXPECT_EQ(config.patience, std::nullopt);
  EXPECT_THAT(config.checkpoint.exclude_from_loading, testing::ElementsAre("scheduler"));
  json file = Minimal();
  file["parallel"]["axes"]["shard"] = 2;
  EXPECT_THAT(std::string(ToStatus(CheckRunnerConfig(file, nullptr)).message()),
              HasSubstr("parallel.axes: needs \"stack\": \"parallel\""));
  file = Minimal();
  file["ckpt"]["enabled"] = true;
  EXPECT_THAT(std::string(ToStatus(CheckRunnerConfig(file, nullptr)).message()), HasSubstr("allowed: \"checkpoint\""));
}

TEST(ConfigSpellingsTest, SoDoTheLaterRevisions) {
  const RunnerConfig config = Read({{"score", {{"metric", "f1"}, {"patience", 3}, {"direction", "max"}}},
                                    {"workspace", {{"root", "runs"}, {"lineage", "a"}}},
                                    {"logging", {{"enabled", false}, {"interval", 7}, {"file", "a.log"}}},
                                    {"dist", {{"train_timeout_seconds", 5}}},
                                    {"ckpt", {{"dir", "saved"}, {"interval", 4}, {"wait_timeout_seconds", 2}}},
                                    {"tensorboard", {{"enabled", true}}},
                                    {"ddp", {{"find_unused_parameters", true}}},
                                    {"resume", true}});
  EXPECT_EQ(config.score.name, "f1");
  EXPECT_EQ(config.score.direction, "max");
  EXPECT_EQ(config.patience, 3);
  EXPECT_EQ(config.workspace_root, "runs");
  EXPECT_EQ(config.lineage, "a");
  EXPECT_FALSE(config.log);
  EXPECT_EQ(config.log_interval, 7);
  EXPECT_EQ(config.log_file, "a.log");
  EXPECT_EQ(config.comm.train_timeout_seconds, 5);
  EXPECT_EQ(config.checkpoint_dir, "saved");
  EXPECT_EQ(config.checkpoint.interval, 4);
  EXPECT_EQ(config.checkpoint.wait_timeout, 2);
  EXPECT_TRUE(config.tensorboard);
  EXPECT_TRUE(config.comm.find_unused_parameters);
  EXPECT_TRUE(config.auto_resume);
  EXPECT_FALSE(config.resume.has_value());
  EXPECT_EQ(Read({{"checkpoint", "runs/old"}}).resume, "runs/old");
}

TEST(ConfigSpellingsTest, MistakesAreNamedAsTheyWereTyped) {
  json file = Minimal();
  file["score_name"] = 5;
  file["evaluate_splits"] = json::array({1});
  EXPECT_THAT(std::string(ToStatus(CheckRunnerConfig(file, nullptr)).message()),
              testing::AllOf(HasSubstr("score_name: found 5 (integer); allowed: string"),
                             HasSubstr("evaluate_splits[0]: found 1 (integer)")));
  file = Minimal();
  file["score_name"] = "f1";
  file["score"] = {{"name", "loss"}};
  EXPECT_THAT(std::string(ToStatus(CheckRunnerConfig(file, nullptr)).message()),
              HasSubstr("score_name: the same option as \"score.name\", which is set too"));
  file = Minimal();
  file["tensorboard"] = {{"enabled", true}, {"log_dir", "x"}};
  EXPECT_THAT(std::string(ToStatus(CheckRunnerConfig(file, nullptr)).message()),
              HasSubstr("tensorboard.log_dir: unknown key; allowed: enabled"));
  file = Minimal();
  file["score_name"] = "f1";
  file["score"] = 3;  // the section itself is the mistake
  EXPECT_THAT(std::string(ToStatus(CheckRunnerConfig(file, nullptr)).message()), HasSubstr("score: found 3 (integer)"));
}

TEST(ConfigSpellingsTest, SectionsOfOtherTrainersAreRefusedWithAReasonUnlessTheyAreOff) {
  Read({{"wandb", {{"enabled", false}, {"project", "p"}}}, {"ft", json::object()}, {"fsdp", nullptr}});
  const std::pair<const char*, const char*> refused[] = {
      {"wandb", "wandb: not written: the format of offline runs"},
      {"fsdp", "fsdp.enabled: needs \"stack\": \"parallel\""},
      {"deepspeed", "deepspeed: not available"},
      {"ft", "ft: not needed: the service restarts lost ranks"},
  };
  for (const auto& [section, reason] : refused) {
    json file = Minimal();
    file[section] = {{"enabled", true}};
    EXPECT_THAT(std::string(ToStatus(CheckRunnerConfig(file, nullptr)).message()), HasSubstr(reason)) << section;
  }
  const std::pair<const char*, const char*> of_python[] = {
      {"compile.mode", "torch.compile"}, {"fp8.recipe_cls", "fp8.recipe"}, {"dataloader.generator", "dataloader.seed"}};
  for (const auto& [path, reason] : of_python) {
    json file = Minimal();
    ASSERT_TRUE(ApplyOverride(file, path, "x").ok());
    const std::string message(ToStatus(CheckRunnerConfig(file, nullptr)).message());
    EXPECT_THAT(message, testing::StartsWith(path));
    EXPECT_THAT(message, HasSubstr(reason));
  }
}

TEST(ConfigSpellingsTest, WhatCannotGoTogetherIsSaid) {
  const std::pair<json, const char*> wrong[] = {
      {{{"fp8", {{"enabled", true}}}, {"precision", "fp16"}}, "precision: found \"fp16\" beside fp8.enabled"},
      {{{"stack", "graph"}, {"precision", "fp16"}}, "precision: found \"fp16\" with compile.enable"},
      {{{"optim", {{"type", "lbfgs"}}}, {"max_grad_norm", 1}}, "max_grad_norm: not with optim.type lbfgs"},
  };
  for (const auto& [changes, problem] : wrong) {
    json file = Minimal();
    file.update(changes);
    EXPECT_THAT(std::string(ToStatus(CheckRunnerConfig(file, nullptr)).message()), HasSubstr(problem));
  }
}

// What goes through the door in any spelling comes out in one, means the same, and names nothing that was not named.
TEST(ConfigSpellingsTest, TheCanonicalFormMeansTheSame) {
  const std::vector<std::pair<json, json>> cases = {
      {json::object(), json::object()},
      {{{"ckpt", {{"keep_latest_k", 10.0}}}}, {{"checkpoint", {{"keep_latest_k", 10}}}}},
      {{{"score_name", "f1"}, {"score_split", "val"}}, {{"score", {{"name", "f1"}, {"split", "val"}}}}},
      {{{"wandb", {{"enabled", false}}}}, json::object()},
      {{{"evaluate_splits", "val"}}, {{"evaluate", {{"splits", {"val"}}}}}},
  };
  for (const auto& [given, wanted] : cases) {
    json file = Minimal();
    file.update(given);
    RunnerConfig config;
    ASSERT_THAT(CheckRunnerConfig(file, &config), IsEmpty()) << file;
    const json canonical = CanonicalRunner(file, config);
    json expected = Minimal();
    expected.update(wanted);
    EXPECT_EQ(canonical, expected);
    RunnerConfig again;
    ASSERT_THAT(CheckRunnerConfig(canonical, &again), IsEmpty()) << canonical;
    EXPECT_EQ(ToJson(again), ToJson(config));
    EXPECT_EQ(CanonicalRunner(canonical, again), canonical);
  }
}

}  // namespace
}  // namespace athanor
