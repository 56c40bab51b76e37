// Updates captured as graphs (of the CPU: tests/support/recorded_graph.h).
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "athanor/config/config_loader.h"
#include "athanor/optim/optimizer_container.h"
#include "tests/support/recorded_graph.h"

namespace athanor {
namespace {

struct Model {
  explicit Model(nlohmann::json optim, OptimizerContainerOptions options = {}) {
    OptimConfig config;
    std::vector<FieldProblem> problems;
    EXPECT_TRUE(CheckStruct(optim, "optim", &config, &problems));
    auto made = MakeOptimizer(config, {{"weight", weight}, {"bias", bias}, {"spare", spare}});
    EXPECT_TRUE(made.ok()) << made.status();
    optimizer = *std::move(made);
    container = std::make_unique<OptimizerContainer>(optimizer.get(), std::move(options));
  }
  // The gradients of update `step`, into the tensors that are there.
  void Fill(int step, bool with_spare = false) {
    int seed = 100 * step;
    for (torch::Tensor tensor : {weight, bias, spare}) {
      if (tensor.is_same(spare) && !with_spare) continue;
      at::Generator generator = at::detail::createCPUGenerator(++seed);
      const torch::Tensor grad = torch::randn(tensor.sizes(), generator);
      tensor.grad().defined() ? (void)tensor.mutable_grad().copy_(grad) : (void)(tensor.mutable_grad() = grad);
    }
  }
  torch::Tensor weight = torch::linspace(-1, 1, 12).reshape({3, 4}).requires_grad_();
  torch::Tensor bias = torch::linspace(0.5, 2, 4).requires_grad_();
  torch::Tensor spare = torch::ones({2}).requires_grad_();
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<OptimizerContainer> container;
};

OptimizerContainerOptions Graphed(OptimizerContainerOptions options = {}) {
  options.graphs = RecordedGraphs();
  options.graph_warmup = 2;
  return options;
}

void ExpectSame(const Model& a, const Model& b) {
  EXPECT_TRUE(torch::equal(a.weight, b.weight));
  EXPECT_TRUE(torch::equal(a.bias, b.bias));
  EXPECT_TRUE(torch::equal(a.spare, b.spare));
}

TEST(UpdateGraphTest, FactorsNormsAndLearningRatesGoOn) {
  for (const char* type : {"sgd", "adam", "adamw", "adagrad"}) {
    SCOPED_TRACE(type);
    Model plain({{"type", type}, {"lr", 0.5}}, {.max_grad_norm = 1.0});
    Model graphed({{"type", type}, {"lr", 0.5}}, Graphed({.max_grad_norm = 1.0}));
    for (int step = 0; step < 12; ++step) {
      for (Model* model : {&plain, &graphed}) {
        model->Fill(step);
        model->optimizer->SetLr(0, 1.0 / (1 << step));  // exact in float32
        const double factor = 1.0 / (step + 1);
        const auto updated = step % 3 == 0 ? model->container->Step(torch::tensor(factor, torch::kFloat64))
                                           : model->container->Step(factor);
        ASSERT_TRUE(updated.ok() && *updated);
        EXPECT_EQ(model->weight.grad().abs().sum().item<double>(), 0);
      }
      EXPECT_EQ(plain.container->grad_norm().item<double>(), graphed.container->grad_norm().item<double>());
      ExpectSame(plain, graphed);
    }
    // The first update has the factor 1 and is of another kind: eleven, of which two warm up and one is captured.
    EXPECT_GE(graphed.container->replays(), 8);
    EXPECT_EQ(plain.container->replays(), 0);
    EXPECT_EQ(plain.optimizer->StateScalars(), graphed.optimizer->StateScalars());
  }
}

TEST(UpdateGraphTest, AParameterThatComesLaterAndStateThatIsLoadedAreCapturedAnew) {
  Model plain({{"type", "adamw"}, {"lr", 0.25}}), graphed({{"type", "adamw"}, {"lr", 0.25}}, Graphed());
  const auto run = [&](int step, bool with_spare) {
    for (Model* model : {&plain, &graphed}) {
      model->Fill(step, with_spare);
      ASSERT_TRUE(model->container->Step().ok());
    }
    ExpectSame(plain, graphed);
  };
  for (int step = 0; step < 6; ++step) run(step, false);
  EXPECT_EQ(graphed.container->replays(), 3);
  for (int step = 6; step < 12; ++step) run(step, true);
  EXPECT_EQ(graphed.container->replays(), 6);
  TensorMap tensors;
  for (const auto& [name, tensor] : plain.optimizer->StateTensors()) tensors[name] = tensor.clone();
  const nlohmann::json scalars = plain.optimizer->StateScalars();
  for (int step = 12; step < 18; ++step) run(step, true);
  for (Model* model : {&plain, &graphed}) ASSERT_TRUE(model->optimizer->LoadState(tensors, scalars).ok());
  for (int step = 18; step < 24; ++step) run(step, true);
  EXPECT_EQ(graphed.container->replays(), 15);
}

TEST(UpdateGraphTest, SkippedUpdatesAndMomentumThatCycles) {
  Model plain({{"type", "sgd"}, {"lr", 0.125}, {"momentum", 0.5}}, {.skip_nonfinite_grad = true});
  Model graphed({{"type", "sgd"}, {"lr", 0.125}, {"momentum", 0.5}}, Graphed({.skip_nonfinite_grad = true}));
  for (int step = 0; step < 20; ++step) {
    for (Model* model : {&plain, &graphed}) {
      model->Fill(step);
      if (step % 5 == 4) model->bias.mutable_grad()[0] = std::numeric_limits<float>::infinity();
      if (step >= 10) model->optimizer->SetMomentum(0, 0.5 + step / 64.0);
      const auto updated = model->container->Step();
      ASSERT_TRUE(updated.ok());
      EXPECT_EQ(*updated, step % 5 != 4);
    }
    ExpectSame(plain, graphed);
  }
  EXPECT_EQ(graphed.container->skipped(), 4);
  EXPECT_EQ(graphed.container->replays(), 5);  // of the first eight; each later one has a momentum of its own
}

TEST(UpdateGraphTest, MeasuredNormsAreAnotherGraph) {
  Model plain({{"type", "sgd"}, {"lr", 0.125}}), graphed({{"type", "sgd"}, {"lr", 0.125}}, Graphed());
  for (int step = 0; step < 16; ++step) {
    for (Model* model : {&plain, &graphed}) {
      model->Fill(step);
      model->container->MeasureNorm(step % 2 == 1);
      ASSERT_TRUE(model->container->Step().ok());
    }
    if (step % 2 == 1) {
      EXPECT_EQ(plain.container->grad_norm().item<double>(), graphed.container->grad_norm().item<double>());
    }
    ExpectSame(plain, graphed);
  }
  EXPECT_EQ(graphed.container->replays(), 10);
}

}  // namespace
}  // namespace athanor
