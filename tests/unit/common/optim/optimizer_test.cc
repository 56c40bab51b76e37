#include "athanor/optim/optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <iostream>

#include "athanor/config/config_loader.h"

namespace athanor {
namespace {

nlohmann::json Reference() {
  std::ifstream file(std::string(ATHANOR_SOURCE_DIR) + "/tests/data/optimizer_reference.json");
  return nlohmann::json::parse(file);
}

OptimConfig ConfigOf(const std::string& type, const nlohmann::json& options) {
  OptimConfig config;
  std::vector<FieldProblem> problems;
  nlohmann::json json = options;
  json["type"] = type;
  EXPECT_TRUE(CheckStruct(json, "optim", &config, &problems));
  return config;
}

// As in make_optimizer_reference.py.
NamedTensors Start(torch::ScalarType dtype = torch::kFloat64) {
  NamedTensors parameters = {{"layer.weight", torch::linspace(-1, 1, 6, torch::kFloat64).reshape({2, 3}).to(dtype)},
                             {"layer.bias", torch::linspace(0.5, 2, 3, torch::kFloat64).to(dtype)}};
  for (auto& [name, tensor] : parameters) tensor.requires_grad_();
  return parameters;
}

void SetGrads(const NamedTensors& parameters, int step) {
  torch::Tensor weight = torch::empty({2, 3}, torch::kFloat64), bias = torch::empty({3}, torch::kFloat64);
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 3; ++j) weight[i][j] = std::sin(step + i * 3 + j);
  }
  for (int j = 0; j < 3; ++j) bias[j] = std::cos(2 * step + j);
  parameters[0].second.mutable_grad() = weight.to(parameters[0].second.scalar_type());
  parameters[1].second.mutable_grad() = bias.to(parameters[1].second.scalar_type());
}

std::unique_ptr<Optimizer> Make(const OptimConfig& config, const NamedTensors& parameters) {
  absl::StatusOr<std::unique_ptr<Optimizer>> optimizer = MakeOptimizer(config, parameters);
  EXPECT_TRUE(optimizer.ok()) << optimizer.status();
  return std::move(optimizer).value();
}

TEST(OptimizerTest, FollowsTorchStepByStep) {
  const nlohmann::json reference = Reference();
  for (const nlohmann::json& item : reference["cases"]) {
    const NamedTensors parameters = Start();
    auto optimizer = Make(ConfigOf(item["type"], item["options"]), parameters);
    for (size_t step = 0; step < item["trace"].size(); ++step) {
      SetGrads(parameters, static_cast<int>(step));
      optimizer->Step();
      for (size_t p = 0; p < 2; ++p) {
        const auto wanted = torch::tensor(item["trace"][step][p].get<std::vector<double>>(), torch::kFloat64);
        const double difference = (parameters[p].second.detach().flatten() - wanted).abs().max().item<double>();
        // Muon's iteration runs in bfloat16.
        ASSERT_LT(difference, item["type"] == "muon" ? 1e-3 : 1e-11)
            << item["type"] << item["options"] << " step " << step;
      }
    }
  }
  std::cout << "optimizers against torch.optim " << reference["torch"] << ": " << reference["cases"].size()
            << " cases\n";
}

// Every type with options that use all of its slots.
std::vector<OptimConfig> AllTypes() {
  return {ConfigOf("sgd", {{"momentum", 0.9}}),
          ConfigOf("adam", {{"amsgrad", true}}),
          ConfigOf("adamw", {{"lr", 0.01}}),
          ConfigOf("adagrad", nlohmann::json::object()),
          ConfigOf("nadam", nlohmann::json::object()),
          ConfigOf("radam", nlohmann::json::object()),
          ConfigOf("rmsprop", {{"momentum", 0.5}, {"centered", true}}),
          ConfigOf("adadelta", nlohmann::json::object()),
          ConfigOf("adamax", nlohmann::json::object()),
          ConfigOf("asgd", {{"t0", 1}, {"lambd", 0.1}}),
          ConfigOf("rprop", nlohmann::json::object()),
          ConfigOf("lion", nlohmann::json::object()),
          ConfigOf("adafactor", nlohmann::json::object()),
          ConfigOf("muon", nlohmann::json::object())};
}

TEST(OptimizerTest, StateSavedAndLoadedGoesOnBitForBit) {
  ASSERT_EQ(AllTypes().size() + 1, OptimTypes().size());  // lbfgs has a test of its own
  for (const torch::ScalarType dtype : {torch::kFloat32, torch::kFloat64}) {
    for (const OptimConfig& config : AllTypes()) {
      const NamedTensors whole = Start(dtype);
      auto uninterrupted = Make(config, whole);
      NamedTensors resumed;
      std::unique_ptr<Optimizer> second;
      for (int step = 0; step < 10; ++step) {
        if (step == 4) {
          TensorMap saved;
          for (const auto& [name, tensor] : uninterrupted->StateTensors()) saved[name] = tensor.clone();
          const nlohmann::json scalars = nlohmann::json::parse(uninterrupted->StateScalars().dump());
          // In another order of parameters, as after a refactoring of the model.
          resumed = {{whole[1].first, whole[1].second.detach().clone().requires_grad_()},
                     {whole[0].first, whole[0].second.detach().clone().requires_grad_()}};
          second = Make(config, resumed);
          ASSERT_TRUE(second->LoadState(saved, scalars).ok()) << config.type;
        }
        SetGrads(whole, step);
        uninterrupted->Step();
        if (second != nullptr) {
          SetGrads({resumed[1], resumed[0]}, step);
          second->Step();
          ASSERT_TRUE(torch::equal(whole[0].second, resumed[1].second)) << config.type << " step " << step;
          ASSERT_TRUE(torch::equal(whole[1].second, resumed[0].second)) << config.type << " step " << step;
        }
      }
    }
  }
}

TEST(OptimizerTest, MuonMovesMatricesByOrthogonalSteps) {
  const NamedTensors parameters = Start(torch::kFloat32);
  auto optimizer = Make(ConfigOf("muon", {{"lr", 0.1}, {"weight_decay", 0.0}}), parameters);
  const torch::Tensor before = parameters[0].second.detach().clone();
  SetGrads(parameters, 3);
  optimizer->Step();
  const torch::Tensor values = std::get<1>(torch::linalg_svd((parameters[0].second.detach() - before) / 0.1));
  EXPECT_GT(values.min().item<double>(), 0.4);
  EXPECT_LT(values.max().item<double>(), 1.4);
}

TEST(OptimizerTest, ParametersWithoutGradientKeepValueAndState) {
  const NamedTensors parameters = Start();
  auto optimizer = Make(ConfigOf("adamw", {{"lr", 0.1}}), parameters);
  SetGrads(parameters, 0);
  parameters[1].second.mutable_grad() = torch::Tensor();
  const torch::Tensor before = parameters[1].second.detach().clone();
  optimizer->Step();
  EXPECT_TRUE(torch::equal(parameters[1].second, before));
  EXPECT_EQ(optimizer->StateTensors().size(), 2u);
  EXPECT_EQ(optimizer->StateScalars()["steps"], nlohmann::json({{"common", 1}, {"others", {{"layer.bias", 0}}}}));
  SetGrads(parameters, 1);
  optimizer->Step();  // numbers of updates differ now
  auto again = Make(ConfigOf("adamw", {{"lr", 0.1}}), parameters);
  EXPECT_TRUE(again->LoadState(optimizer->StateTensors(), optimizer->StateScalars()).ok());
  EXPECT_EQ(again->StateScalars(), optimizer->StateScalars());
}

TEST(OptimizerTest, GradientsOfAnotherLayoutAreAppliedToTheRightElements) {
  NamedTensors parameters = Start(), same = Start();
  auto a = Make(ConfigOf("adamw", {{"lr", 0.1}}), parameters), b = Make(ConfigOf("adamw", {{"lr", 0.1}}), same);
  SetGrads(parameters, 1);
  SetGrads(same, 1);
  same[0].second.mutable_grad() = same[0].second.grad().t().contiguous().t();
  a->Step();
  b->Step();
  EXPECT_TRUE(torch::equal(parameters[0].second, same[0].second));
}

TEST(OptimizerTest, ZeroesGradientsInPlaceEvenIfTheyAreViews) {
  const NamedTensors parameters = Start();
  torch::Tensor bucket = torch::ones({9}, torch::kFloat64);
  parameters[0].second.mutable_grad() = bucket.narrow(0, 0, 6).view({2, 3});
  parameters[1].second.mutable_grad() = bucket.narrow(0, 6, 3);
  auto optimizer = Make(ConfigOf("sgd", {{"lr", 0.1}}), parameters);
  optimizer->Step();
  optimizer->ZeroGrad();
  EXPECT_EQ(bucket.sum().item<double>(), 0);
  EXPECT_EQ(parameters[0].second.grad().data_ptr(), bucket.data_ptr());
}

TEST(OptimizerTest, GroupsTakeParametersByPattern) {
  OptimConfig config = ConfigOf("adamw", {{"lr", 0.1}, {"weight_decay", 0.2}});
  config.param_groups = {{.pattern = "bias$", .lr_multiplier = 0.5, .weight_decay = 0.0, .beta2 = 0.9},
                         {.pattern = "nothing", .lr = 3.0}};
  auto optimizer = Make(config, Start());
  ASSERT_EQ(optimizer->group_count(), 2u);
  EXPECT_THAT(optimizer->group_parameters(0), testing::ElementsAre("layer.bias"));
  EXPECT_DOUBLE_EQ(optimizer->lr(0), 0.05);
  EXPECT_EQ(optimizer->group_options(0).weight_decay, 0);
  EXPECT_EQ(optimizer->group_options(0).beta2, 0.9);
  EXPECT_EQ(optimizer->lr(1), 0.1);
  EXPECT_THAT(optimizer->notes(), testing::ElementsAre(testing::HasSubstr("\"nothing\" takes no parameter")));
}

TEST(OptimizerTest, SharedAndFrozenParameters) {
  NamedTensors parameters = Start();
  parameters.emplace_back("tied.weight", parameters[0].second);
  parameters.emplace_back("frozen", torch::ones({2}));
  EXPECT_EQ(Make(ConfigOf("sgd", {{"lr", 0.1}}), parameters)->parameters().size(), 2u);
}

TEST(OptimizerTest, RefusesWhatCannotWork) {
  const auto message = [](const OptimConfig& config, const NamedTensors& parameters) {
    return std::string(MakeOptimizer(config, parameters).status().message());
  };
  EXPECT_THAT(message(OptimConfig{}, Start()), testing::StartsWith("optim.type: missing; allowed: one of sgd"));
  EXPECT_THAT(message(ConfigOf("adam", {{"momentum", 0.5}}), Start()),
              testing::StartsWith("optim.momentum: not an option of adam"));
  EXPECT_THAT(message(ConfigOf("sgd", {{"lr", 1}}), {}), testing::HasSubstr("nothing to train"));
  torch::Tensor gaps = torch::ones({4, 4}).narrow(1, 0, 2).detach().requires_grad_();
  EXPECT_THAT(message(ConfigOf("sgd", {{"lr", 1}}), {{"w", gaps}}),
              testing::HasSubstr("parameter w: its memory has gaps"));
}

TEST(OptimizerTest, RefusesAForeignStateAndStaysAsItWas) {
  const NamedTensors parameters = Start();
  auto optimizer = Make(ConfigOf("adam", {{"lr", 0.1}}), parameters);
  SetGrads(parameters, 0);
  optimizer->Step();
  const TensorMap good = optimizer->StateTensors();
  const nlohmann::json scalars = optimizer->StateScalars();
  const auto message = [&](TensorMap tensors, const nlohmann::json& json) {
    return std::string(optimizer->LoadState(tensors, json).message());
  };
  TensorMap bad = good;
  bad["optim.other.exp_avg"] = torch::ones({1});
  EXPECT_EQ(message(bad, scalars), "optimizer state optim.other.exp_avg: no parameter \"other\" is trained");
  bad = good;
  bad["optim.layer.bias.exp_avg"] = torch::ones({4});
  EXPECT_EQ(message(bad, scalars), "optimizer state optim.layer.bias.exp_avg: found Float [4]; allowed: Double [3]");
  bad = good;
  bad.erase("optim.layer.bias.exp_avg_sq");
  EXPECT_EQ(message(bad, scalars), "optimizer state: optim.layer.bias.exp_avg_sq is missing");
  bad = good;
  bad["optim.layer.bias.sum"] = good.begin()->second;
  EXPECT_THAT(message(bad, scalars),
              testing::HasSubstr("found slot sum; allowed: exp_avg, exp_avg_sq, max_exp_avg_sq"));
  nlohmann::json other = scalars;
  other["type"] = "sgd";
  EXPECT_EQ(message(good, other), "optimizer state: found type sgd; allowed: adam");
  EXPECT_THAT(message(good, nlohmann::json::object()), testing::StartsWith("optimizer state is damaged"));
  EXPECT_EQ(optimizer->StateScalars(), scalars);
  EXPECT_EQ(message(good, scalars), "");
}

}  // namespace
}  // namespace athanor
