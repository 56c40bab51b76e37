#include "athanor/optim/optimizer_container.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "athanor/config/config_loader.h"

namespace athanor {
namespace {

using testing::HasSubstr;

OptimConfig ConfigOf(const nlohmann::json& json) {
  OptimConfig config;
  std::vector<FieldProblem> problems;
  EXPECT_TRUE(CheckStruct(json, "optim", &config, &problems));
  return config;
}

struct Problem {
  torch::Tensor weight = torch::linspace(-1, 1, 6, torch::kFloat64).reshape({2, 3}).requires_grad_();
  torch::Tensor bias = torch::linspace(0.5, 2, 3, torch::kFloat64).requires_grad_();
  NamedTensors parameters() const { return {{"weight", weight}, {"bias", bias}}; }
  torch::Tensor Loss() const {  // as in make_optimizer_reference.py
    return ((weight.square() - 1).square()).sum() + (bias - weight.sum(0)).square().sum() / 2;
  }
  LossClosure Closure() const {
    return [this] {
      torch::Tensor loss = Loss();
      loss.backward();
      return loss;
    };
  }
};

std::unique_ptr<Optimizer> Make(const nlohmann::json& json, const Problem& problem) {
  auto optimizer = MakeOptimizer(ConfigOf(json), problem.parameters());
  EXPECT_TRUE(optimizer.ok()) << optimizer.status();
  return *std::move(optimizer);
}

nlohmann::json LbfgsCases() {
  std::ifstream file(std::string(ATHANOR_SOURCE_DIR) + "/tests/data/optimizer_reference.json");
  return nlohmann::json::parse(file).at("lbfgs");
}

TEST(LbfgsTest, FollowsTorchAndGoesOnFromItsState) {
  for (const nlohmann::json& item : LbfgsCases()) {
    nlohmann::json config = item["options"];
    config["type"] = "lbfgs";
    Problem problem;
    auto optimizer = Make(config, problem);
    for (size_t step = 0; step < item["trace"].size(); ++step) {
      optimizer->Step(problem.Closure());
      const auto values = {problem.weight, problem.bias};
      size_t p = 0;
      for (const torch::Tensor& value : values) {
        const auto wanted = torch::tensor(item["trace"][step][p++].get<std::vector<double>>(), torch::kFloat64);
        ASSERT_LT((value.detach().flatten() - wanted).abs().max().item<double>(), 1e-8)
            << item["options"] << " step " << step;
      }
      // Saved and restored between updates: nothing changes.
      TensorMap tensors;
      for (const auto& [name, tensor] : optimizer->StateTensors()) tensors[name] = tensor.clone();
      const nlohmann::json scalars = nlohmann::json::parse(optimizer->StateScalars().dump());
      optimizer = Make(config, problem);
      const absl::Status loaded = optimizer->LoadState(tensors, scalars);
      ASSERT_TRUE(loaded.ok()) << loaded;
    }
  }
}

TEST(LbfgsTest, RefusesWhatItHasNot) {
  Problem problem;
  auto optimizer = Make({{"type", "lbfgs"}}, problem);
  EXPECT_TRUE(optimizer->needs_closure());
  problem.Loss().backward();
  EXPECT_THROW(optimizer->Step(), c10::Error);
  OptimizerContainer container(optimizer.get(), {});
  EXPECT_EQ(container.Step().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(container.Step(problem.Closure()).ok());
  EXPECT_FALSE(MakeOptimizer(ConfigOf({{"type", "lbfgs"}, {"weight_decay", 0.1}}), problem.parameters()).ok());
  EXPECT_FALSE(
      MakeOptimizer(ConfigOf({{"type", "lbfgs"}, {"param_groups", {{{"pattern", "w"}}}}}), problem.parameters()).ok());
  TensorMap tensors = optimizer->StateTensors();
  tensors["optim.lbfgs.d"] = torch::ones({2});
  EXPECT_THAT(std::string(optimizer->LoadState(tensors, optimizer->StateScalars()).message()),
              HasSubstr("optim.lbfgs"));
}

TEST(OptimizerContainerTest, ClipsByValueThenByNormAndClears) {
  Problem problem;
  auto optimizer = Make({{"type", "sgd"}, {"lr", 1.0}}, problem);
  OptimizerContainer container(optimizer.get(), {.max_grad_value = 0.5, .max_grad_norm = 0.1});
  const torch::Tensor before = problem.weight.detach().clone();
  problem.weight.mutable_grad() = torch::full({2, 3}, 8.0, torch::kFloat64);
  auto updated = container.Step(0.5);
  ASSERT_TRUE(updated.ok() && *updated);
  // 6 elements, clamped to 0.5, then scaled to a norm of 0.1.
  EXPECT_NEAR(container.grad_norm().item<double>(), std::sqrt(6 * 0.25), 1e-12);
  EXPECT_NEAR((before - problem.weight.detach()).norm().item<double>(), 0.1, 1e-6);
  EXPECT_EQ(problem.weight.grad().abs().max().item<double>(), 0);
}

TEST(OptimizerContainerTest, SkipsNonFiniteGradientsWithScheduleAndAllRanks) {
  Problem problem;
  auto optimizer = Make({{"type", "sgd"}, {"lr", 1.0}}, problem);
  SchedConfig sched;
  sched.type = "exponential";
  sched.gamma = 0.5;
  auto scheduler = *LrScheduler::Make(sched, {}, optimizer.get());
  bool other = false;
  OptimizerContainer container(
      optimizer.get(),
      {.skip_nonfinite_grad = true, .any_rank = [&](bool mine) -> absl::StatusOr<bool> { return mine || other; }});
  container.Add(scheduler.get());
  const torch::Tensor before = problem.weight.detach().clone();
  for (const double bad : {std::nan(""), HUGE_VAL}) {
    problem.weight.mutable_grad() = torch::full({2, 3}, bad, torch::kFloat64);
    EXPECT_FALSE(*container.Step());
  }
  other = true;  // this rank's gradients are fine: it must leave the update out all the same
  problem.weight.mutable_grad() = torch::ones({2, 3}, torch::kFloat64);
  EXPECT_FALSE(*container.Step());
  EXPECT_TRUE(torch::equal(problem.weight.detach(), before));
  EXPECT_EQ(optimizer->lr(), 1.0);
  EXPECT_EQ(container.skipped(), 3);
  other = false;
  problem.weight.mutable_grad() = torch::ones({2, 3}, torch::kFloat64);
  EXPECT_TRUE(*container.Step());
  EXPECT_TRUE(torch::allclose(problem.weight.detach(), before - 1));
  EXPECT_EQ(optimizer->lr(), 0.5);
  EXPECT_EQ(container.updates(), 1);
}

TEST(OptimizerContainerTest, EpochSchedulesTakeTheirMetric) {
  Problem problem;
  auto optimizer = Make({{"type", "sgd"}, {"lr", 1.0}}, problem);
  SchedConfig sched;
  sched.type = "reduce_on_plateau";
  sched.patience = 0;
  auto scheduler = *LrScheduler::Make(sched, {}, optimizer.get());
  OptimizerContainer container(optimizer.get(), {});
  container.Add(scheduler.get());
  problem.Loss().backward();
  ASSERT_TRUE(container.Step().ok());
  EXPECT_EQ(optimizer->lr(), 1.0);
  ASSERT_TRUE(container.StepEpoch(0.5).ok());
  ASSERT_TRUE(container.StepEpoch(std::nullopt).ok());
  EXPECT_EQ(optimizer->lr(), 1.0) << "nothing was measured, so nothing has got worse";
  ASSERT_TRUE(container.StepEpoch(std::nan("")).ok());  // measured, and no improvement
  EXPECT_NEAR(optimizer->lr(), 0.1, 1e-12);
}

}  // namespace
}  // namespace athanor
