#include "athanor/torch/fp8_linear.h"

#include <ATen/autocast_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace athanor {
namespace {

double RelativeError(const torch::Tensor& found, const torch::Tensor& wanted) {
  return ((found.to(torch::kFloat64) - wanted.to(torch::kFloat64)).norm() / wanted.to(torch::kFloat64).norm())
      .item<double>();
}

class Fp8Test : public testing::TestWithParam<Fp8Recipe> {
 protected:
  void SetUp() override { torch::manual_seed(3); }
};

TEST_P(Fp8Test, ProductAndGradientsAreNearTheExactOnes) {
  const torch::Tensor x = torch::randn({3, 13, 48}).requires_grad_(), weight = torch::randn({32, 48}).requires_grad_(),
                      bias = torch::randn({32}).requires_grad_();
  const torch::Tensor exact = torch::linear(x, weight, bias);
  const torch::Tensor seed = torch::randn(exact.sizes());
  const auto wanted = torch::autograd::grad({exact}, {x, weight, bias}, {seed});
  const torch::Tensor found = Fp8Product(x, weight, bias, GetParam());
  ASSERT_EQ(found.sizes(), exact.sizes());
  EXPECT_EQ(found.scalar_type(), torch::kFloat32);
  // Three bits of mantissa: 2^-4 at most per factor, 2^-3 for the gradients' e5m2; errors of a sum are independent.
  EXPECT_LT(RelativeError(found, exact), 0.05);
  EXPECT_GT(RelativeError(found, exact), 1e-4) << "it was computed exactly, not in 8 bits";
  const auto gradients = torch::autograd::grad({found}, {x, weight, bias}, {seed});
  EXPECT_LT(RelativeError(gradients[0], wanted[0]), 0.09);
  EXPECT_LT(RelativeError(gradients[1], wanted[1]), 0.09);
  EXPECT_TRUE(torch::equal(gradients[2], wanted[2]));
}

TEST_P(Fp8Test, FollowsAutocastAndKeepsParametersTypes) {
  const torch::Tensor x = torch::randn({16, 32}), weight = torch::randn({16, 32}).requires_grad_();
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  const torch::Tensor found = Fp8Product(x, weight, {}, GetParam());
  at::autocast::set_autocast_enabled(at::kCPU, false);
  EXPECT_EQ(found.scalar_type(), torch::kBFloat16);
  found.sum().backward();
  EXPECT_EQ(weight.grad().scalar_type(), torch::kFloat32);
}

TEST_P(Fp8Test, ALayerTrainsAboutAsWellAsInFullPrecision) {
  const auto train = [&](bool in_8_bits) {
    torch::manual_seed(5);
    torch::nn::Sequential net(Fp8Linear(16, 64), torch::nn::ReLU(), Fp8Linear(64, 16));
    torch::optim::SGD optimizer(net->parameters(), 0.05);
    const torch::Tensor x = torch::randn({64, 16}), y = torch::tanh(x.matmul(torch::randn({16, 16}) * 0.3));
    torch::Tensor loss;
    for (int i = 0; i < 200; ++i) {
      const Fp8Scope scope(in_8_bits ? std::optional(GetParam()) : std::nullopt);
      loss = torch::mse_loss(net->forward(x), y);
      optimizer.zero_grad();
      loss.backward();
      optimizer.step();
    }
    return loss.item<double>();
  };
  const double exact = train(false), rough = train(true);
  EXPECT_NE(exact, rough);
  EXPECT_LT(rough, exact * 1.2 + 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Recipes, Fp8Test, testing::Values(Fp8Recipe::kTensorwise, Fp8Recipe::kRowwise));

TEST(Fp8LinearTest, OutsideOfAScopeItIsALinear) {
  torch::manual_seed(1);
  torch::nn::Linear plain(32, 16);
  torch::manual_seed(1);
  Fp8Linear layer(32, 16);
  const torch::Tensor x = torch::randn({5, 32});
  EXPECT_TRUE(torch::equal(layer(x), plain(x)));
  EXPECT_EQ(layer->named_parameters().keys(), plain->named_parameters().keys());
  EXPECT_FALSE(Fp8Scope::current().has_value());
  {
    const Fp8Scope scope(Fp8Recipe::kTensorwise);
    const Fp8Scope nothing(std::nullopt);
    EXPECT_TRUE(Fp8Scope::current().has_value());
    EXPECT_FALSE(torch::equal(layer(x), plain(x)));
    Fp8Linear odd(30, 16);
    EXPECT_TRUE(torch::equal(odd(torch::ones({2, 30})), torch::linear(torch::ones({2, 30}), odd->weight, odd->bias)));
  }
  EXPECT_FALSE(Fp8Scope::current().has_value());
}

TEST(Fp8LinearTest, ZerosStayZerosAndTheCpuIsRefused) {
  const torch::Tensor zero = torch::zeros({16, 16});
  EXPECT_TRUE(torch::equal(Fp8Product(zero, zero, {}, Fp8Recipe::kTensorwise), zero));
  EXPECT_TRUE(torch::equal(Fp8Product(zero, zero, {}, Fp8Recipe::kRowwise), zero));
  EXPECT_EQ(CheckFp8(torch::kCPU).message(),
            "precision: fp8 needs a CUDA device of compute capability 8.9 or higher; found cpu");
  torch::nn::Sequential net(Fp8Linear(16, 32), torch::nn::ReLU(), Fp8Linear(32, 10));
  EXPECT_EQ(CountFp8Layers(*net), 1);
}

}  // namespace
}  // namespace athanor
