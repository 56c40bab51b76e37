// A parameter with two names (tied weights) is one parameter; and tensors are asked of the module, not kept.
#include "athanor/runner/state/pretrained.h"
#include "athanor/torch/module_tensors.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Scores of tokens against the table that they came from.
struct Tied : torch::nn::Module {
  explicit Tied(bool tie) {
    in = register_parameter("in", torch::randn({5, 4}, at::detail::createCPUGenerator(3)));
    out = register_parameter("out", tie ? in : in.detach().clone());
    mean = register_buffer("mean", torch::zeros({4}));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    return torch::matmul(torch::nn::functional::embedding(x, in), out.t());
  }
  void AssignAnew() {
    const torch::NoGradGuard no_grad;
    in = parameters_["in"] = in.detach().clone().requires_grad_();
  }
  torch::Tensor in, out, mean;
};

std::shared_ptr<Dataset> Tokens() {
  return *TensorDataset::Make(torch::arange(40) % 5, (torch::arange(40) * 2) % 5);
}

nlohmann::json Config(const nlohmann::json& changes = nlohmann::json::object()) {
  nlohmann::json config = {{"steps", 20},
                           {"sched", nullptr},
                           {"optim", {{"type", "sgd"}, {"lr", 0.5}, {"momentum", 0.9}}},
                           {"checkpoint", {{"interval", 0}}}};
  config.merge_patch(changes);
  return config;
}

absl::StatusOr<std::unique_ptr<TorchRunner>> Make(std::shared_ptr<Tied> net, const nlohmann::json& config,
                                                  ProcessGroup* group = nullptr, bool evaluate = true) {
  TorchRunnerOptions options;
  options.workspace_from_config = false;
  options.model = net;
  options.datasets = {{"train", Tokens()}};
  if (evaluate) options.datasets["val"] = Tokens();
  options.forward = [net](const Batch& batch) {
    return StepOutput{torch::nn::functional::cross_entropy(net->forward(batch.input), batch.target), {}};
  };
  options.members = group;
  return TorchRunner::Create(TestConfig(config), std::move(options));
}

torch::Tensor TrainedTable(bool tie, const nlohmann::json& changes, bool evaluate, ProcessGroup* group = nullptr) {
  auto net = std::make_shared<Tied>(tie);
  auto runner = Make(net, Config(changes), group, evaluate);
  EXPECT_TRUE(runner.ok()) << runner.status();
  if (!runner.ok()) return {};
  const auto result = (*runner)->Train();
  EXPECT_TRUE(result.ok()) << result.status();
  return net->in.detach().clone();
}

TEST(SharedTensors, AnEvaluationChangesNoTraining) {
  for (const bool tie : {false, true}) {
    for (const bool ema : {false, true}) {
      const nlohmann::json average = {{"ema", {{"enabled", ema}, {"decay", 0.9}}}};
      nlohmann::json often = average;
      often["evaluate"] = {{"interval", 2}};
      EXPECT_TRUE(torch::equal(TrainedTable(tie, average, false), TrainedTable(tie, often, true))) << tie << ema;
    }
  }
}

TEST(SharedTensors, AreExchangedOnceBetweenRanks) {
  const nlohmann::json half = {{"dataloader", {{"batch_size", 4}}}, {"max_grad_norm", 0.1}};
  nlohmann::json whole = half;
  whole["dataloader"]["batch_size"] = 8;
  const torch::Tensor expected = TrainedTable(true, whole, true);
  for (const bool shared_memory : {true, false}) {
    RunRanks(2, shared_memory, [&](ProcessGroup* group) {
      EXPECT_TRUE(torch::allclose(TrainedTable(true, half, true, group), expected, 1e-4, 1e-6));
    });
  }
}

TEST(SharedTensors, AreOneParameterUnderTheirFirstName) {
  auto net = std::make_shared<Tied>(true);
  EXPECT_EQ(DistinctParameters(*net).size(), 1u);
  EXPECT_THAT(TiedNames(*net).at("in"), ElementsAre("out"));
  EXPECT_EQ(StateOf(*net).size(), 3u);
  auto runner = Make(net, Config({{"ema", {{"enabled", true}}},
                                  {"optim", {{"param_groups", {{{"pattern", "^in$"}, {"lr", 0.25}}}}}}}));
  ASSERT_TRUE(runner.ok()) << runner.status();
  EXPECT_EQ((*runner)->optimizer().parameters().size(), 1u);
  EXPECT_THAT((*runner)->optimizer().group_parameters(0), ElementsAre("in"));
  EXPECT_EQ((*runner)->optimizer().group_options(0).lr, 0.25);
  ASSERT_TRUE((*runner)->Train().ok());
  const auto state = (*runner)->StateDict();
  ASSERT_TRUE(state.ok()) << state.status();
  for (const char* name : {"model.in", "model.out", "ema.in", "ema.out"}) EXPECT_EQ(state->replicated.count(name), 1u);
  EXPECT_EQ(state->replicated.count("optim.out.momentum_buffer"), 0u);
}

TEST(SharedTensors, OneNameIsEnoughToLoadThem) {
  auto trained = std::make_shared<Tied>(true);
  auto runner = Make(trained, Config({{"ema", {{"enabled", true}}}}));
  ASSERT_TRUE(runner.ok() && (*runner)->Train().ok());
  auto state = (*runner)->StateDict();
  ASSERT_TRUE(state.ok());
  for (const std::string missing : {"in", "out"}) {
    TrainingState part = *state;
    part.replicated.erase("model." + missing);
    part.replicated.erase("ema." + missing);
    auto net = std::make_shared<Tied>(true);
    auto again = Make(net, Config({{"ema", {{"enabled", true}}}}));
    ASSERT_TRUE(again.ok());
    const absl::Status loaded = (*again)->LoadStateDict(part);
    ASSERT_TRUE(loaded.ok()) << loaded;
    EXPECT_TRUE(torch::equal(net->out, trained->in));

    TensorMap weights = {{"in", trained->in}, {"out", trained->in}, {"mean", trained->mean}};
    weights.erase(missing);
    auto other = std::make_shared<Tied>(true);
    const auto report = LoadWeights(weights, {}, other.get());
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_TRUE(torch::equal(other->in, trained->in));
    auto untied = std::make_shared<Tied>(false);
    EXPECT_THAT(std::string(LoadWeights(weights, {}, untied.get()).status().message()), HasSubstr(missing));
  }
}

TEST(SharedTensors, AParameterAssignedAnewIsToldBeforeItIsSaved) {
  auto net = std::make_shared<Tied>(false);
  auto runner = Make(net, Config());
  ASSERT_TRUE(runner.ok());
  net->AssignAnew();
  const auto state = (*runner)->StateDict();
  EXPECT_EQ(FailureKindOf(state.status()), FailureKind::kUserCode);
  EXPECT_THAT(std::string(state.status().message()), HasSubstr("parameter 'in' is another tensor"));
}

}  // namespace
}  // namespace athanor
