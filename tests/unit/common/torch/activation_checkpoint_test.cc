#include "athanor/torch/activation_checkpoint.h"

#include <ATen/autocast_mode.h>

#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace athanor {
namespace {

using ::testing::HasSubstr;

// What runs twice must drop the same.
struct BlockImpl : torch::nn::Module {
  BlockImpl() { register_module("inner", inner); }
  torch::Tensor forward(const torch::Tensor& x) { return x + inner->forward(x); }
  torch::nn::Sequential inner{torch::nn::Linear(6, 12), torch::nn::GELU(), torch::nn::Dropout(0.4),
                              torch::nn::Linear(12, 6)};
};
TORCH_MODULE(Block);

struct Net : torch::nn::Module {
  Net() {
    for (int i = 0; i < 4; ++i) blocks->push_back(Block());
    register_module("blocks", blocks);
    register_module("head", head);
    const torch::NoGradGuard no_grad;
    at::Generator random = at::detail::createCPUGenerator(5);
    for (torch::Tensor& parameter : parameters()) parameter.normal_(0, 0.4, random);
  }
  torch::Tensor forward(const torch::Tensor& x) { return head(blocks->forward(x)).square().sum(); }
  torch::nn::Sequential blocks;
  torch::nn::Linear head{6, 2};
};

struct Found {
  double loss = 0;
  std::map<std::string, torch::Tensor> gradients;
  torch::Tensor input_gradient, random;
};

Found Step(Net& net, bool input_needs_gradient, bool autocast) {
  net.zero_grad();
  torch::manual_seed(17);
  torch::Tensor x = torch::randn({5, 6}, at::detail::createCPUGenerator(2)).requires_grad_(input_needs_gradient);
  at::autocast::set_autocast_enabled(at::kCPU, autocast);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  torch::Tensor loss = net.forward(x);
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, false);
  loss.backward();
  Found found{loss.item<double>(), {}, x.grad(), torch::rand({3})};
  for (const auto& item : net.named_parameters()) found.gradients[item.key()] = item.value().grad().clone();
  return found;
}

void ExpectSame(const Found& a, const Found& b) {
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_TRUE(torch::equal(a.random, b.random));
  EXPECT_EQ(a.input_gradient.defined(), b.input_gradient.defined());
  if (a.input_gradient.defined()) EXPECT_TRUE(torch::equal(a.input_gradient, b.input_gradient));
  ASSERT_EQ(a.gradients.size(), b.gradients.size());
  for (const auto& [name, gradient] : a.gradients) EXPECT_TRUE(torch::equal(gradient, b.gradients.at(name))) << name;
}

TEST(ActivationCheckpoint, GradientsAndRandomNumbersAreThoseOfOneRun) {
  for (const bool autocast : {false, true}) {
    for (const bool input : {false, true}) {
      Net plain, checkpointed;
      const auto blocks = CheckpointChildren(checkpointed, {"blocks"}, 1);
      ASSERT_TRUE(blocks.ok()) << blocks.status();
      EXPECT_EQ(*blocks, 4);
      ExpectSame(Step(checkpointed, input, autocast), Step(plain, input, autocast));
    }
  }
}

TEST(ActivationCheckpoint, EveryNthAndWithinAnother) {
  Net plain, some, nested;
  EXPECT_EQ(*CheckpointChildren(some, {}, 3), 2);  // the first and the fourth; inner lists are within
  EXPECT_EQ(*CheckpointChildren(nested, {"blocks.0.inner"}, 2), 2);
  EXPECT_EQ(*CheckpointChildren(nested, {"blocks"}, 2), 2);
  const Found expected = Step(plain, true, false);
  ExpectSame(Step(some, true, false), expected);
  ExpectSame(Step(nested, true, false), expected);
  EXPECT_TRUE(nested.named_parameters().contains("blocks.0.inner.0.weight"));
  EXPECT_THAT(std::string(CheckpointChildren(plain, {"head"}, 1).status().message()),
              HasSubstr("found \"head\"; allowed: a torch::nn::Sequential of the model: blocks"));
}

TEST(ActivationCheckpoint, APartRunsAgainOnlyForGradients) {
  int runs = 0;
  torch::Tensor weight = torch::ones({3}, torch::requires_grad());
  const auto part = [&](const std::vector<torch::Tensor>& in) {
    ++runs;
    return in[0] * weight * in[1];
  };
  const torch::Tensor a = torch::full({3}, 2.0), b = torch::full({3}, 5.0).requires_grad_();
  {
    const torch::NoGradGuard no_grad;
    EXPECT_FALSE(Checkpointed(part, {a, b}).requires_grad());
  }
  EXPECT_EQ(runs, 1);
  Checkpointed(part, {a, b}).sum().backward();
  EXPECT_EQ(runs, 3);
  EXPECT_TRUE(torch::equal(weight.grad(), torch::full({3}, 10.0)));
  EXPECT_TRUE(torch::equal(b.grad(), torch::full({3}, 2.0)));
}

}  // namespace
}  // namespace athanor
