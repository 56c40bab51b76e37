#include "athanor/parallel/strategies/sharded_parameters.h"

#include <torch/script.h>

#include <map>

#include "athanor/parallel/strategies/shard_strategy.h"
#include "athanor/torch/status.h"
#include "gmock/gmock.h"
#include "tests/unit/common/parallel/rank_threads.h"

namespace athanor {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct BlockImpl : torch::nn::Module {
  explicit BlockImpl(int64_t width)
      : norm(register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({width})))),
        up(register_module("up", torch::nn::Linear(width, 3 * width))),
        down(register_module("down", torch::nn::Linear(3 * width, width))) {}
  torch::Tensor forward(const torch::Tensor& x) { return x + down(torch::gelu(up(norm(x)))); }
  torch::nn::LayerNorm norm;
  torch::nn::Linear up, down;
};
TORCH_MODULE(Block);

// Tokens to tokens; the head's weight is the embedding's, one block is frozen, and one is used on request only.
struct LanguageModel : torch::nn::Module {
  LanguageModel()
      : tokens(register_module("tokens", torch::nn::Embedding(17, 12))),
        blocks(register_module("blocks", torch::nn::ModuleList())),
        end(register_module("end", torch::nn::LayerNorm(torch::nn::LayerNormOptions({12})))) {
    for (int i = 0; i < 4; ++i) blocks->push_back(Block(12));
    for (torch::Tensor& parameter : blocks->at<BlockImpl>(1).parameters()) parameter.requires_grad_(false);
  }
  torch::Tensor forward(const torch::Tensor& ids, bool with_last) {
    torch::Tensor x = tokens(ids);
    for (int i = 0; i < (with_last ? 4 : 3); ++i) x = blocks->at<BlockImpl>(i).forward(x);
    const torch::Tensor scores = torch::matmul(end(x), tokens->weight.t());
    return torch::nn::functional::cross_entropy(scores.view({-1, 17}), ids.roll(1, 1).flatten());
  }
  torch::nn::Embedding tokens;
  torch::nn::ModuleList blocks;
  torch::nn::LayerNorm end;
};

std::vector<NamedParameter> ParametersOf(const torch::nn::Module& module) {
  std::vector<NamedParameter> parameters;
  for (const auto& item : module.named_parameters()) parameters.push_back({item.key(), item.value()});
  return parameters;
}

std::shared_ptr<LanguageModel> Made() {
  auto model = std::make_shared<LanguageModel>();
  auto random = at::detail::createCPUGenerator(3);
  const torch::NoGradGuard no_gradient;
  for (torch::Tensor& parameter : model->parameters()) parameter.normal_(0, 0.2, random);
  return model;
}

torch::Tensor Ids(int rank, int step) {
  return torch::randint(0, 17, {3, 5}, at::detail::createCPUGenerator(static_cast<uint64_t>(100 * rank + step + 1)));
}

bool WithLast(int step) {
  return step % 3 != 1;
}

// What one process makes of all ranks' batches: gradients added in rank order, then scaled.
struct Reference {
  std::vector<double> losses;  // of rank 0
  std::map<std::string, torch::Tensor> weights;
};

Reference OneProcess(int ranks, int steps, int passes) {
  auto model = Made();
  std::vector<torch::Tensor> trained;
  for (const NamedParameter& one : ParametersOf(*model)) {
    if (one.tensor.requires_grad()) trained.push_back(one.tensor);
  }
  torch::optim::SGD optimizer(trained, torch::optim::SGDOptions(0.1).momentum(0.9).weight_decay(0.01));
  Reference reference;
  for (int step = 0; step < steps; ++step) {
    std::vector<torch::Tensor> sums(trained.size());
    for (int pass = 0; pass < passes; ++pass) {
      std::vector<torch::Tensor> of_pass(trained.size());
      for (int rank = 0; rank < ranks; ++rank) {
        optimizer.zero_grad();
        const torch::Tensor loss = model->forward(Ids(rank, step * passes + pass), WithLast(step));
        loss.backward();
        if (rank == 0) reference.losses.push_back(loss.item<double>());
        for (size_t i = 0; i < trained.size(); ++i) {
          if (!trained[i].grad().defined()) continue;
          of_pass[i] = of_pass[i].defined() ? of_pass[i] + trained[i].grad() : trained[i].grad().clone();
        }
      }
      for (size_t i = 0; i < trained.size(); ++i) {
        if (of_pass[i].defined()) sums[i] = sums[i].defined() ? sums[i] + of_pass[i] : of_pass[i];
      }
    }
    for (size_t i = 0; i < trained.size(); ++i) {
      trained[i].mutable_grad() = sums[i].defined() ? sums[i] * (1.0 / ranks) : torch::Tensor();
    }
    optimizer.step();
  }
  for (const NamedParameter& one : ParametersOf(*model)) reference.weights[one.name] = one.tensor.detach().clone();
  return reference;
}

void ExpectEqualWeights(ShardedParameters& sharded, const std::map<std::string, torch::Tensor>& expected) {
  size_t count = 0;
  const absl::Status gathered = sharded.Gathered([&](const std::string& name, const torch::Tensor& whole) {
    ++count;
    EXPECT_TRUE(torch::allclose(whole, expected.at(name), 1e-6, 1e-7)) << name;
    return absl::OkStatus();
  });
  EXPECT_TRUE(gathered.ok()) << gathered;
  EXPECT_EQ(count, expected.size());
}

class ShardedParametersTest : public ::testing::TestWithParam<std::tuple<int, bool, bool>> {
 protected:
  int ranks() const { return std::get<0>(GetParam()); }
  ShardingOptions options() const {
    return {.reshard_after_forward = std::get<1>(GetParam()), .prefetch = std::get<2>(GetParam())};
  }
};

INSTANTIATE_TEST_SUITE_P(Worlds, ShardedParametersTest,
                         ::testing::Combine(::testing::Values(1, 2, 4), ::testing::Bool(), ::testing::Bool()));

TEST_P(ShardedParametersTest, TrainsAsOneProcess) {
  constexpr int kSteps = 6;
  const Reference reference = OneProcess(ranks(), kSteps, /*passes=*/1);
  RunRanks(ranks(), /*shared_memory=*/true, [&](ProcessGroup* group) {
    torch::set_num_threads(1);
    auto model = Made();
    auto sharded = ShardedParameters::Create(UnitsByName(ParametersOf(*model), {"blocks.*"}), group, options());
    ASSERT_TRUE(sharded.ok()) << sharded.status();
    std::vector<torch::Tensor> slices;
    for (const auto& slice : (*sharded)->Slices()) {
      if (slice.value.requires_grad()) slices.push_back(slice.value);
    }
    torch::optim::SGD optimizer(slices, torch::optim::SGDOptions(0.1).momentum(0.9).weight_decay(0.01));
    for (int step = 0; step < kSteps; ++step) {
      ASSERT_TRUE((*sharded)->Begin().ok());
      const torch::Tensor loss = model->forward(Ids(group->rank(), step), WithLast(step));
      loss.backward();
      const absl::Status finished = (*sharded)->FinishBackward(1.0 / ranks());
      ASSERT_TRUE(finished.ok()) << finished;
      if (group->rank() == 0) EXPECT_NEAR(loss.item<double>(), reference.losses[step], 1e-5) << step;
      optimizer.step();
    }
    ExpectEqualWeights(**sharded, reference.weights);
  });
}

TEST_P(ShardedParametersTest, SeveralPassesAddUp) {
  const Reference reference = OneProcess(ranks(), 3, /*passes=*/2);
  RunRanks(ranks(), /*shared_memory=*/false, [&](ProcessGroup* group) {
    torch::set_num_threads(1);
    auto model = Made();
    auto sharded = ShardedParameters::Create(UnitsByName(ParametersOf(*model), {}), group, options());
    ASSERT_TRUE(sharded.ok()) << sharded.status();
    std::vector<torch::Tensor> slices;
    for (const auto& slice : (*sharded)->Slices()) {
      if (slice.value.requires_grad()) slices.push_back(slice.value);
    }
    torch::optim::SGD optimizer(slices, torch::optim::SGDOptions(0.1).momentum(0.9).weight_decay(0.01));
    for (int step = 0; step < 3; ++step) {
      ASSERT_TRUE((*sharded)->Begin().ok());
      for (int pass = 0; pass < 2; ++pass) {
        model->forward(Ids(group->rank(), step * 2 + pass), WithLast(step)).backward();
      }
      ASSERT_TRUE((*sharded)->FinishBackward(1.0 / ranks()).ok());
      optimizer.step();
    }
    ExpectEqualWeights(**sharded, reference.weights);
  });
}

// ZeRO-1 and ZeRO-2: whole parameters; gradients summed once or after each pass; also in two by two ranks.
TEST(ShardedParameters, OptimizerStateAloneIsDivided) {
  for (const bool sum_once : {true, false}) {
    for (const bool hybrid : {false, true}) {
      const Reference reference = OneProcess(4, 3, /*passes=*/2);
      RunRanks(4, /*shared_memory=*/true, [&](ProcessGroup* group) {
        torch::set_num_threads(1);
        const int rank = group->rank();
        ShardingOptions options{.parameters_stay = true, .sum_once = sum_once};
        ProcessGroup* shards = group;
        if (hybrid) {
          shards = *group->Subgroup(rank < 2 ? std::vector<int>{0, 1} : std::vector<int>{2, 3});
          options.replicas = *group->Subgroup(rank % 2 == 0 ? std::vector<int>{0, 2} : std::vector<int>{1, 3});
        }
        auto model = Made();
        auto sharded = ShardedParameters::Create(UnitsByName(ParametersOf(*model), {"blocks.*"}), shards, options);
        ASSERT_TRUE(sharded.ok()) << sharded.status();
        std::vector<torch::Tensor> slices;
        for (const auto& slice : (*sharded)->Slices()) {
          if (slice.value.requires_grad()) slices.push_back(slice.value);
        }
        torch::optim::SGD optimizer(slices, torch::optim::SGDOptions(0.1).momentum(0.9).weight_decay(0.01));
        for (int step = 0; step < 3; ++step) {
          ASSERT_TRUE((*sharded)->Begin().ok());
          for (int pass = 0; pass < 2; ++pass) {
            (*sharded)->Pass(/*last=*/pass == 1);
            model->forward(Ids(rank, step * 2 + pass), WithLast(step)).backward();
          }
          ASSERT_TRUE((*sharded)->FinishBackward(0.25).ok());
          optimizer.step();
          ASSERT_TRUE((*sharded)->Refresh().ok());
        }
        ExpectEqualWeights(**sharded, reference.weights);
        for (const NamedParameter& one : ParametersOf(*model))
          EXPECT_TRUE(torch::allclose(one.tensor, reference.weights.at(one.name), 1e-6, 1e-7)) << one.name;
      });
    }
  }
}

TEST(ShardedParameters, BfloatParametersHaveFloatSlices) {
  RunRanks(2, /*shared_memory=*/true, [&](ProcessGroup* group) {
    torch::set_num_threads(1);
    auto model = Made(), whole = Made();
    whole->to(torch::kBFloat16);
    auto sharded = ShardedParameters::Create(UnitsByName(ParametersOf(*model), {"blocks.*"}), group,
                                             {.parameter_type = torch::kBFloat16, .reduce_type = torch::kFloat32});
    ASSERT_TRUE(sharded.ok()) << sharded.status();
    for (int step = 0; step < 2; ++step) {
      ASSERT_TRUE((*sharded)->Begin().ok());
      const torch::Tensor loss = model->forward(Ids(0, step), true);
      EXPECT_TRUE(torch::equal(loss, whole->forward(Ids(0, step), true))) << step;
      loss.backward();
      ASSERT_TRUE((*sharded)->FinishBackward(0.5).ok());
    }
    whole->zero_grad();
    whole->forward(Ids(0, 1), true).backward();
    const auto expected = whole->named_parameters();
    for (const auto& slice : (*sharded)->Slices()) {
      EXPECT_EQ(slice.value.scalar_type(), torch::kFloat32);
      const torch::Tensor of_whole = expected[slice.name].grad();
      if (!of_whole.defined() || slice.value.numel() == 0) continue;
      EXPECT_EQ(slice.value.grad().scalar_type(), torch::kFloat32);
      const torch::Tensor part = of_whole.flatten().narrow(0, slice.begin, slice.value.numel()).to(torch::kFloat32);
      EXPECT_TRUE(torch::equal(slice.value.grad(), part)) << slice.name;
    }
  });
}

TEST(ShardedParameters, ARankHoldsItsShareAndGathersAhead) {
  RunRanks(2, /*shared_memory=*/true, [](ProcessGroup* group) {
    auto model = Made();
    const int64_t all = [&] {
      int64_t count = 0;
      for (const NamedParameter& one : ParametersOf(*model)) count += one.tensor.numel();
      return count;
    }();
    auto sharded = ShardedParameters::Create(UnitsByName(ParametersOf(*model), {"blocks.*"}), group, {});
    ASSERT_TRUE(sharded.ok());
    int64_t own = 0;
    for (const auto& slice : (*sharded)->Slices()) own += slice.value.numel();
    EXPECT_NEAR(static_cast<double>(own), static_cast<double>(all) / 2, 0.1 * static_cast<double>(all));
    for (const NamedParameter& one : ParametersOf(*model)) EXPECT_EQ(one.tensor.storage().nbytes(), 0u) << one.name;
    int64_t gathers = 0;
    for (int step = 0; step < 3; ++step) {
      ASSERT_TRUE((*sharded)->Begin().ok());
      model->forward(Ids(group->rank(), 0), true).backward();
      ASSERT_TRUE((*sharded)->FinishBackward(0.5).ok());
      gathers = (*sharded)->counts().gathers;
      if (step > 0) EXPECT_GT((*sharded)->counts().prefetched, gathers / 2);
    }
    // Four blocks forward and backward, and the tied embedding with the last norm around them.
    EXPECT_LE(gathers, 2 * 4 + 3);
    for (const NamedParameter& one : ParametersOf(*model)) {
      EXPECT_EQ(one.tensor.storage().nbytes(), 0u) << one.name;
      EXPECT_FALSE(one.tensor.grad().defined()) << one.name;
    }
  });
}

TEST(ShardedParameters, EvaluationGathersAndReleases) {
  RunRanks(2, /*shared_memory=*/true, [](ProcessGroup* group) {
    auto model = Made(), whole = Made();
    auto sharded = ShardedParameters::Create(UnitsByName(ParametersOf(*model), {"blocks.*"}), group, {});
    ASSERT_TRUE(sharded.ok());
    const torch::NoGradGuard no_gradient;
    ASSERT_TRUE((*sharded)->Begin().ok());
    const torch::Tensor loss = model->forward(Ids(7, 7), true);
    ASSERT_TRUE((*sharded)->Release().ok());
    EXPECT_TRUE(torch::equal(loss, whole->forward(Ids(7, 7), true)));
    for (const NamedParameter& one : ParametersOf(*model)) EXPECT_EQ(one.tensor.storage().nbytes(), 0u);
  });
}

TEST(ShardedParameters, WhatWouldBeLostIsRefused) {
  RunRanks(2, /*shared_memory=*/true, [](ProcessGroup* group) {
    auto model = Made();
    auto sharded = ShardedParameters::Create(UnitsByName(ParametersOf(*model), {"blocks.*"}), group, {});
    ASSERT_TRUE(sharded.ok());
    const auto error_of = [](const std::function<void()>& body) -> std::string {
      const absl::Status status = RunTorch("it", body);
      return std::string(status.message());
    };
    EXPECT_THAT(error_of([&] { model->forward(Ids(0, 0), true); }), HasSubstr("unit 'root' outside of a step"));
    ASSERT_TRUE((*sharded)->Begin().ok());
    const torch::NoGradGuard no_gradient;
    EXPECT_THAT(error_of([&] { model->blocks->at<BlockImpl>(2).up->weight.mul_(2); }),
                HasSubstr("aten::mul_ writes to a sharded parameter of unit 'blocks.2'"));
    EXPECT_THAT(error_of([&] { model->end->bias.normal_(); }), HasSubstr("unit 'root'"));
    EXPECT_FALSE((*sharded)->Begin().ok());
    ASSERT_TRUE((*sharded)->Release().ok());
  });
  EXPECT_FALSE(ShardedParameters::Create({}, nullptr, {}).ok());
}

TEST(ShardedParameters, TorchScriptModulesAreSharded) {
  const std::string source = R"(
def forward(self, x):
    return torch.tanh(x @ self.first.t() + self.bias) @ self.second.t()
)";
  const auto made = [&] {
    torch::jit::Module module("Net");
    auto random = at::detail::createCPUGenerator(5);
    for (const auto& [name, sizes] : std::vector<std::pair<std::string, std::vector<int64_t>>>{
             {"first", {8, 6}}, {"bias", {8}}, {"second", {3, 8}}}) {
      module.register_parameter(name, torch::randn(sizes, random).requires_grad_(), /*is_buffer=*/false);
    }
    module.define(source);
    return module;
  };
  const torch::Tensor x = torch::randn({4, 6}, at::detail::createCPUGenerator(6));
  torch::jit::Module whole = made();
  whole.forward({x}).toTensor().square().sum().backward();
  RunRanks(2, /*shared_memory=*/true, [&](ProcessGroup* group) {
    torch::jit::Module module = made();
    std::vector<NamedParameter> parameters;
    for (const auto& one : module.named_parameters()) parameters.push_back({one.name, one.value});
    auto sharded = ShardedParameters::Create({{"net", parameters}}, group, {});
    ASSERT_TRUE(sharded.ok());
    for (int step = 0; step < 4; ++step) {  // the profiling executor comes to its optimized graph
      ASSERT_TRUE((*sharded)->Begin().ok());
      module.forward({x}).toTensor().square().sum().backward();
      ASSERT_TRUE((*sharded)->FinishBackward(0.5).ok());
    }
    for (const auto& slice : (*sharded)->Slices()) {
      const torch::Tensor expected =
          whole.attr(slice.name).toTensor().grad().flatten().narrow(0, slice.begin, slice.value.numel());
      EXPECT_TRUE(torch::allclose(slice.value.grad(), expected, 1e-5, 1e-6)) << slice.name;
    }
  });
}

TEST(UnitsByName, FollowsPatternsOrLists) {
  std::vector<NamedParameter> parameters;
  for (const char* name : {"tok.weight", "blocks.0.a", "blocks.0.b", "blocks.1.a", "head.0.w", "head.bias"}) {
    parameters.push_back({name, torch::empty({1})});
  }
  const auto names = [&](const std::vector<std::string>& patterns) {
    std::vector<std::string> units;
    for (const ShardUnit& unit : UnitsByName(parameters, patterns)) units.push_back(unit.name);
    return units;
  };
  EXPECT_THAT(names({}), ElementsAre("root", "blocks.0", "blocks.1", "head.0"));
  EXPECT_THAT(names({"blocks.*"}), ElementsAre("root", "blocks.0", "blocks.1"));
  EXPECT_THAT(names({"blocks", "head"}), ElementsAre("root", "blocks", "head"));
}

TEST(JoinedUnits, HaveTheBytesThatAreWanted) {
  std::vector<NamedParameter> parameters;
  for (const char* name : {"tok.weight", "blocks.0.a", "blocks.1.a", "blocks.2.a", "head.bias", "blocks.3.a"})
    parameters.push_back({name, torch::empty({100})});
  const auto names = [&](int64_t bytes) {
    std::vector<std::string> units;
    for (const ShardUnit& unit : JoinedUnits(UnitsByName(parameters, {}), bytes)) units.push_back(unit.name);
    return units;
  };
  EXPECT_THAT(names(0), ElementsAre("root", "blocks.0", "blocks.1", "blocks.2", "blocks.3"));
  EXPECT_THAT(names(800), ElementsAre("root", "blocks.0+blocks.1", "blocks.2+blocks.3"));
  EXPECT_THAT(names(1 << 20), ElementsAre("root", "blocks.0+blocks.1+blocks.2+blocks.3"));
}

}  // namespace
}  // namespace athanor
