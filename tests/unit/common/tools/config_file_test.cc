#include "athanor/tools/config_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace athanor {
namespace {

using testing::HasSubstr;

class ConfigFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "/athanor-config-XXXXXX";
    folder_ = mkdtemp(name.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name) << text;
    return folder_ + "/" + name;
  }
  std::string Problem(const std::vector<std::string>& arguments) {
    const auto config = ReadRunConfig(arguments);
    EXPECT_FALSE(config.ok());
    return std::string(config.status().message());
  }
  std::string folder_;
};

TEST_F(ConfigFileTest, AFileAndTheCommandLineOverIt) {
  const std::string yaml = Write("run.yaml", "epochs: 5\noptim: {type: adamw, lr: 1.0e-3}\nscore_name: f1\n");
  const std::string json =
      Write("run.json", R"({"epochs": 5, "optim": {"type": "adamw", "lr": 1e-3}, "score_name": "f1"})");
  for (const std::string& file : {yaml, json}) {
    const char* argv[] = {"train",  "--config", file.c_str(),        "--optim.lr", "0.01", "--optim.betas=[0.9, 0.95]",
                          "--name", "a b",      "--ema.enabled=true"};
    const auto config = ReadRunConfig(static_cast<int>(std::size(argv)), argv, {{"seed", 3}, {"epochs", 1}});
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->epochs, 5);
    EXPECT_EQ(config->seed, 3);
    EXPECT_EQ(config->optim.type, "adamw");
    EXPECT_EQ(config->optim.lr, 0.01);
    EXPECT_THAT(config->optim.betas, testing::ElementsAre(0.9, 0.95));
    EXPECT_EQ(config->name, "a b");
    EXPECT_EQ(config->score.name, "f1");
    EXPECT_TRUE(config->ema.enabled);
  }
  EXPECT_EQ(ReadRunConfigFile(yaml)->optim.lr, 1e-3);
}

TEST_F(ConfigFileTest, MistakesNameTheFileAndTheKey) {
  const std::string file = Write("run.yaml", "epochs: 5\noptim: {type: adamw, lrr: 1}\n");
  EXPECT_THAT(Problem({"--config", file}), HasSubstr(file + ": optim.lrr: unknown key, did you mean \"lr\"?"));
  EXPECT_THAT(Problem({"--epochs"}), HasSubstr("--epochs has no value"));
  EXPECT_EQ(ReadRunConfig({"--help"}).status().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(Problem({"--help"}), HasSubstr("--config FILE"));
  const std::string twice = Write("twice.yaml", "steps: 10\noptim: {type: sgd}\nsteps: 20\n");
  EXPECT_THAT(Problem({"--config", twice}), HasSubstr("the key \"steps\" is there twice"));
  EXPECT_THAT(Problem({"epochs=3"}), HasSubstr("found \"epochs=3\""));
  EXPECT_THAT(Problem({"--config", file, "--config=" + file}), HasSubstr("allowed: one file"));
  EXPECT_THAT(Problem({"--optim..lr=1"}), HasSubstr("empty part"));
  EXPECT_THAT(Problem({"--config", Write("list.yaml", "[1, 2]\n")}), HasSubstr("found no mapping"));
  EXPECT_THAT(Problem({"--config", Write("run.txt", "epochs: 5\n")}), HasSubstr("found no mapping"));
  EXPECT_THAT(Problem({"--config", Write("bad.yaml", "a: [1\n")}), HasSubstr("bad.yaml"));
  EXPECT_TRUE(absl::IsNotFound(ReadRunConfigFile(folder_ + "/absent.yaml").status()));
  EXPECT_THAT(Problem({"--config", Write("empty.yaml", "")}), HasSubstr("steps: missing"));
}

}  // namespace
}  // namespace athanor
