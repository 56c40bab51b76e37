#include "athanor/optim/gradients.h"

#include <gtest/gtest.h>

#include <limits>

namespace athanor {
namespace {

std::vector<torch::Tensor> Parameters(torch::ScalarType dtype = torch::kFloat32) {
  std::vector<torch::Tensor> parameters;
  for (const std::vector<double>& values : {std::vector<double>{3, -4}, {12}, {}}) {
    torch::Tensor parameter =
        torch::zeros({static_cast<int64_t>(std::max<size_t>(values.size(), 1))}, dtype).requires_grad_();
    if (!values.empty()) parameter.mutable_grad() = torch::tensor(values, dtype);
    parameters.push_back(parameter);
  }
  return parameters;  // the last has no gradient
}

TEST(GradientsTest, NormAndClippingByNorm) {
  const auto parameters = Parameters();
  EXPECT_FLOAT_EQ(GradNorm(parameters).item<float>(), 13);
  EXPECT_FLOAT_EQ(ClipGradNorm(parameters, 100).item<float>(), 13);
  EXPECT_FLOAT_EQ(parameters[1].grad().item<float>(), 12);
  EXPECT_FLOAT_EQ(ClipGradNorm(parameters, 1.3).item<float>(), 13);
  EXPECT_NEAR(parameters[0].grad()[1].item<float>(), -0.4, 1e-6);
  EXPECT_NEAR(GradNorm(parameters).item<float>(), 1.3, 1e-6);
  EXPECT_EQ(GradNorm({}).item<float>(), 0);
}

TEST(GradientsTest, NormOfHalfPrecisionDoesNotOverflow) {
  auto parameters = Parameters(torch::kFloat16);
  parameters[1].mutable_grad() = torch::full({1}, 60000, torch::kFloat16);
  EXPECT_NEAR(GradNorm(parameters).item<float>(), 60000, 40);
}

TEST(GradientsTest, ClipsByValueAndScales) {
  const auto parameters = Parameters(torch::kFloat64);
  ClipGradValue(parameters, 3.5);
  EXPECT_TRUE(torch::equal(parameters[0].grad(), torch::tensor({3.0, -3.5}, torch::kFloat64)));
  ScaleGradients(parameters, 2.0);
  ScaleGradients(parameters, torch::tensor(0.5, torch::kFloat64));
  EXPECT_DOUBLE_EQ(parameters[1].grad().item<double>(), 3.5);
  ZeroGradients(parameters);
  EXPECT_EQ(GradNorm(parameters).item<double>(), 0);
}

TEST(GradientsTest, FindsNonFiniteElements) {
  const auto parameters = Parameters();
  EXPECT_EQ(NonFiniteGradients(parameters).item<float>(), 0);
  parameters[0].grad()[0] = 3e38F;  // finite, though its square is not
  parameters[0].grad()[1] = 3e38F;
  EXPECT_EQ(NonFiniteGradients(parameters).item<float>(), 0);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    parameters[1].grad()[0] = bad;
    EXPECT_EQ(NonFiniteGradients(parameters).item<float>(), 1);
  }
  EXPECT_EQ(NonFiniteGradients({}).item<float>(), 0);
}

}  // namespace
}  // namespace athanor
