// What TorchRunner::Create() makes of the process that it finds: a launcher's environment, generators, cuBLAS.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>

#include <cstdlib>
#include <fstream>

#include "athanor/runner/step/deterministic.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

using ::testing::HasSubstr;

RunnerConfig Config(nlohmann::json changes = nlohmann::json::object()) {
  changes["steps"] = 2;
  if (!changes.contains("checkpoint")) changes["checkpoint"] = {{"interval", 0}};
  return TestConfig(changes);
}

TorchRunnerOptions Options(std::shared_ptr<TestNet> net = std::make_shared<TestNet>()) {
  TorchRunnerOptions options;
  options.model = net;
  options.datasets = {{"train", TestData(20, 1)}};
  options.forward = [net](const Batch& batch) {
    return StepOutput{torch::nn::functional::cross_entropy(net->forward(batch.input), batch.target), {}};
  };
  return options;
}

TEST(CreateRunnerTest, ARankOfALauncherThatJoinsNobodyIsRefused) {
  setenv("WORLD_SIZE", "2", 1);
  const auto refused = TorchRunner::Create(Config(), Options());
  TorchRunnerOptions options = Options();
  options.alone = true;
  const auto meant = TorchRunner::Create(Config(), std::move(options));
  unsetenv("WORLD_SIZE");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(FailureKindOf(refused.status()), FailureKind::kInvalid);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("WORLD_SIZE is 2"));
  EXPECT_TRUE(meant.ok()) << meant.status();
}

TEST(CreateRunnerTest, TheSeedCoversWeightsThatTheRunnerAsksFor) {
  auto weights = [](int seed) {
    TorchRunnerOptions options = Options();
    auto net = std::make_shared<std::shared_ptr<torch::nn::LinearImpl>>();
    options.model = nullptr;
    options.make_model = [net] { return *net = std::make_shared<torch::nn::LinearImpl>(6, 3); };
    options.forward = [net](const Batch& batch) {
      return StepOutput{torch::nn::functional::cross_entropy((*net)->forward(batch.input), batch.target), {}};
    };
    torch::rand({3});  // what the process drew before does not count
    auto runner = TorchRunner::Create(Config({{"seed", seed}}), std::move(options));
    EXPECT_TRUE(runner.ok()) << runner.status();
    EXPECT_TRUE((*runner)->Train().ok());
    return (*runner)->model().parameters()[0].clone();
  };
  EXPECT_TRUE(torch::equal(weights(3), weights(3)));
  EXPECT_FALSE(torch::equal(weights(3), weights(4)));
  TorchRunnerOptions both = Options();
  both.make_model = [] { return std::make_shared<TestNet>(); };
  EXPECT_FALSE(TorchRunner::Create(Config(), std::move(both)).ok());
  TorchRunnerOptions none = Options();
  none.model = nullptr;
  none.make_model = [] { return std::shared_ptr<torch::nn::Module>(); };
  EXPECT_FALSE(TorchRunner::Create(Config(), std::move(none)).ok());
}

// The first line of a run's log.
std::string FirstLine(const nlohmann::json& changes) {
  const TestFolder folder;
  nlohmann::json config = changes;
  config["dir"] = folder.path();
  config["log_file"] = folder.path() + "/run.log";
  config["checkpoint"] = {{"interval", 10}};
  auto runner = TorchRunner::Create(Config(config), Options());
  EXPECT_TRUE(runner.ok()) << runner.status();
  const auto result = (*runner)->Train();
  EXPECT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->notes, testing::IsEmpty());
  std::ifstream log(folder.path() + "/run.log");
  std::string line;
  std::getline(log, line);
  return line;
}

TEST(CreateRunnerTest, WeightsMadeBeforeTheSeedAreNamedInTheFirstLineOfTheLog) {
  const auto generator = at::detail::getDefaultCPUGenerator();
  at::Generator(generator).set_current_seed(c10::default_rng_seed_val);
  EXPECT_THAT(FirstLine({{"seed", 5}}), HasSubstr("`seed` does not cover the model's first weights"));
  EXPECT_THAT(FirstLine({{"seed", 5}}), testing::Not(HasSubstr("does not cover")));  // seeded by the first run
}

TEST(CreateRunnerTest, DeterministicOnCudaNeedsAWorkspaceThatRepeats) {
  setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0", 1);
  const absl::Status refused = UseDeterministicAlgorithms(torch::kCUDA);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("CUBLAS_WORKSPACE_CONFIG is \":0:0\""));
  unsetenv("CUBLAS_WORKSPACE_CONFIG");
  EXPECT_TRUE(UseDeterministicAlgorithms(torch::kCUDA).ok());
  EXPECT_STREQ(std::getenv("CUBLAS_WORKSPACE_CONFIG"), ":4096:8");
  EXPECT_FALSE(at::globalContext().allowTF32CuBLAS());
  EXPECT_FALSE(at::globalContext().allowTF32CuDNN());
  at::globalContext().setDeterministicAlgorithms(false, false);
  unsetenv("CUBLAS_WORKSPACE_CONFIG");
}

}  // namespace
}  // namespace athanor
