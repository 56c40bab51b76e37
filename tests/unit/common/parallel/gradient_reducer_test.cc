#include "athanor/parallel/gradient_reducer.h"

#include "athanor/parallel/host_memory_group.h"
#include "athanor/torch/status.h"
#include "gmock/gmock.h"
#include "tests/unit/common/parallel/rank_threads.h"

namespace athanor {
namespace {

struct Net : torch::nn::Module {
  explicit Net(int64_t hidden = 24) {
    first = register_module("first", torch::nn::Linear(10, hidden));
    norm = register_module("norm", torch::nn::BatchNorm1d(hidden));
    second = register_module("second", torch::nn::Linear(hidden, 3));
  }
  torch::Tensor forward(const torch::Tensor& x) { return second(torch::relu(first(x))); }
  torch::nn::Linear first{nullptr}, second{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
};

// Threads share the default generator: weights and data from generators of their own.
void Fill(torch::nn::Module& module, uint64_t seed) {
  torch::NoGradGuard no_grad;
  at::Generator generator = at::detail::createCPUGenerator(seed);
  for (torch::Tensor& parameter : module.parameters())
    parameter.copy_(torch::randn(parameter.sizes(), generator) * 0.3);
}

torch::Tensor Loss(Net& net, const torch::Tensor& x) {
  return net.forward(x).pow(2).mean() + 0 * net.norm->weight.sum() + 0 * net.norm->bias.sum();
}

class GradientReducerTest : public ::testing::TestWithParam<std::tuple<int, bool, int>> {};

TEST_P(GradientReducerTest, MeanOfRanksIsGradientOfWholeBatch) {
  const auto [world, shared, bucket_bytes] = GetParam();
  const torch::Tensor data = torch::randn({4, world * 8, 10}, at::detail::createCPUGenerator(3));
  Net reference;
  Fill(reference, 5);
  std::vector<std::vector<torch::Tensor>> expected;
  for (int step = 0; step < 4; ++step) {
    for (torch::Tensor& parameter : reference.parameters()) parameter.mutable_grad().reset();
    Loss(reference, data[step]).backward();
    expected.emplace_back();
    for (const torch::Tensor& parameter : reference.parameters()) expected.back().push_back(parameter.grad().clone());
  }
  RunRanks(world, shared, [&, bucket_bytes = bucket_bytes](ProcessGroup* group) {
    auto net = std::make_shared<Net>();
    Fill(*net, 5 + group->rank() * 100);  // only rank 0's count
    auto reducer = GradientReducer::Create(*net, group, {.bucket_bytes = bucket_bytes});
    ASSERT_TRUE(reducer.ok()) << reducer.status();
    for (int step = 0; step < 4; ++step) {
      const torch::Tensor mine = data[step].slice(0, group->rank() * 8, group->rank() * 8 + 8);
      // Step 3: two micro-batches, the first one without an exchange.
      if (step == 3) {
        (Loss(*net, mine.slice(0, 0, 4)) * 0.5).backward();
        torch::Tensor loss = Loss(*net, mine.slice(0, 4, 8)) * 0.5;
        (*reducer)->PrepareForBackward(loss);
        loss.backward();
      } else {
        torch::Tensor loss = Loss(*net, mine);
        (*reducer)->PrepareForBackward(loss);
        loss.backward();
      }
      (*reducer)->FinishBackward();
      const auto parameters = net->parameters();
      for (size_t i = 0; i < parameters.size(); ++i) {
        EXPECT_TRUE(torch::allclose(parameters[i].grad(), expected[step][i], 1e-5, 1e-7))
            << "step " << step << " parameter " << i;
      }
      (*reducer)->DropGradients();
      for (const torch::Tensor& parameter : net->parameters()) EXPECT_FALSE(parameter.grad().defined());
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Layouts, GradientReducerTest,
                         ::testing::Combine(::testing::Values(2, 3), ::testing::Bool(),
                                            ::testing::Values(1 << 20, 400)));

TEST(GradientReducer, SpreadsBuffersAndRefusesDifferentModels) {
  RunRanks(2, true, [&](ProcessGroup* group) {
    auto net = std::make_shared<Net>();
    auto reducer = GradientReducer::Create(*net, group, {});
    ASSERT_TRUE(reducer.ok()) << reducer.status();
    net->norm->running_mean.fill_(group->rank() + 1.0);
    ASSERT_TRUE((*reducer)->SyncBuffers().ok());
    EXPECT_TRUE((net->norm->running_mean == 1.0).all().item<bool>());
  });
  RunRanks(2, true, [&](ProcessGroup* group) {
    auto net = std::make_shared<Net>(24 + group->rank());
    EXPECT_TRUE(absl::IsInvalidArgument(GradientReducer::Create(*net, group, {}).status()));
  });
}

TEST(GradientReducer, ParametersThatARankLeavesOut) {
  for (const bool shared : {true, false}) {
    RunRanks(2, shared, [&](ProcessGroup* group) {
      auto net = std::make_shared<Net>();
      Fill(*net, 5);
      auto reducer = GradientReducer::Create(*net, group, {.find_unused_parameters = true});
      ASSERT_TRUE(reducer.ok());
      for (int step = 0; step < 2; ++step) {
        // Rank 1 stops at the first layer; nobody uses the norm.
        const torch::Tensor hidden = net->first(torch::ones({2, 10}));
        const torch::Tensor loss = group->rank() == 0 ? net->second(hidden).sum() : hidden.sum();
        (*reducer)->PrepareForBackward(loss);
        loss.backward();
        (*reducer)->FinishBackward();
        const torch::Tensor expected = torch::full({3}, 1.0);  // two samples on one of two ranks
        ASSERT_TRUE(net->second->bias.grad().defined());
        EXPECT_TRUE(torch::allclose(net->second->bias.grad(), expected));
        (*reducer)->DropGradients();
      }
    });
  }
  RunRanks(2, true, [&](ProcessGroup* group) {
    auto net = std::make_shared<Net>();
    auto reducer = GradientReducer::Create(*net, group, {});
    ASSERT_TRUE(reducer.ok());
    const absl::Status status = RunTorch("training step", [&] {
      const torch::Tensor loss = net->first(torch::ones({2, 10})).sum();
      (*reducer)->PrepareForBackward(loss);
      loss.backward();
      (*reducer)->FinishBackward();
    });
    EXPECT_THAT(std::string(status.message()),
                testing::HasSubstr("parameter 'norm.weight' has no gradient after backward; set "
                                   "comm.find_unused_parameters"));
  });
}

TEST(GradientReducer, GradientsOfAnotherLayoutAreThoseOfTheirParameters) {
  RunRanks(2, true, [&](ProcessGroup* group) {
    auto net = torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 4, 3));
    auto reducer = GradientReducer::Create(*net, group, {});
    ASSERT_TRUE(reducer.ok());
    const torch::Tensor values =
        torch::arange(108, torch::kFloat32).reshape(net->weight.sizes()) * (group->rank() + 1.0);
    // One rank's gradient lies in memory otherwise.
    net->weight.mutable_grad() =
        group->rank() == 0 ? values.contiguous(torch::MemoryFormat::ChannelsLast) : values.clone();
    net->bias.mutable_grad() = torch::ones({4});
    (*reducer)->FinishBackward();
    EXPECT_TRUE(
        torch::equal(net->weight.grad(), torch::arange(108, torch::kFloat32).reshape(net->weight.sizes()) * 1.5));
  });
}

TEST(GradientReducer, LostPeerIsAnErrorOfTheStep) {
  RunRanks(2, true, [&](ProcessGroup* group) {
    auto net = std::make_shared<Net>();
    auto reducer = GradientReducer::Create(*net, group, {});
    ASSERT_TRUE(reducer.ok());
    if (group->rank() == 1) {
      group->Abort();
      return;
    }
    const absl::Status status = RunTorch("training step", [&] {
      torch::Tensor loss = Loss(*net, torch::ones({2, 10}));
      (*reducer)->PrepareForBackward(loss);
      loss.backward();
      (*reducer)->FinishBackward();
    });
    EXPECT_EQ(FailureKindOf(status), FailureKind::kPeerLost) << status;
  });
}

}  // namespace
}  // namespace athanor
