// NestedTensors of every dtype, and where they are used: without gradients, in optimizer steps, with dropout, out of
// elements that are not contiguous, in files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "athanor/io/tensor_file.h"
#include "athanor/nested/index.h"
#include "athanor/nested/ops/arithmetic.h"
#include "athanor/nested/ops/layers.h"
#include "athanor/nested/ops/loss.h"
#include "athanor/nested/ops/reduce.h"
#include "athanor/nested/ops/shape.h"

namespace athanor {
namespace {

using torch::Tensor;
using torch::indexing::Slice;
using Elements = std::vector<Tensor>;

// 8-bit floats have no comparison: equal when widened.
bool Same(const Tensor& a, const Tensor& b) {
  const auto wide = [](const Tensor& t) { return c10::isFloat8Type(t.scalar_type()) ? t.to(torch::kFloat32) : t; };
  return a.scalar_type() == b.scalar_type() && torch::equal(wide(a), wide(b));
}

class Dtypes : public ::testing::TestWithParam<torch::Dtype> {
 protected:
  // One dim varies, two do, dim 1 alone does, none does.
  std::vector<Elements> Batches() const {
    std::vector<Elements> batches;
    const std::vector<std::vector<std::vector<int64_t>>> shapes = {
        {{3, 2}, {1, 2}}, {{2, 3}, {3, 1}}, {{2, 3}, {2, 1}}, {{2, 2}, {2, 2}}};
    for (const auto& pair : shapes) {
      Elements elements;
      for (const auto& shape : pair) {
        int64_t numel = 1;
        for (const int64_t size : shape) numel *= size;
        elements.push_back(torch::arange(1, numel + 1, torch::kFloat32).reshape(shape).to(GetParam()));
      }
      batches.push_back(std::move(elements));
    }
    return batches;
  }
};

TEST_P(Dtypes, PackPadSelectAndCast) {
  for (const Elements& elements : Batches()) {
    NestedTensor x(elements);
    EXPECT_EQ(x.dtype(), GetParam());
    x.set_padding_value(1);
    const Tensor padded = x.tensor();
    EXPECT_EQ(padded.scalar_type(), GetParam());
    const Tensor fill = torch::ones({}, torch::kFloat32).to(GetParam());
    for (int64_t i = 0; i < 2; ++i) {
      const Tensor& element = elements[static_cast<size_t>(i)];
      EXPECT_TRUE(Same(x[i], element));
      const Tensor part = padded[i].narrow(0, 0, element.size(0)).narrow(1, 0, element.size(1));
      EXPECT_TRUE(Same(part, element));
      const Tensor rest = padded[i].narrow(0, element.size(0), padded.size(1) - element.size(0)).contiguous();
      EXPECT_TRUE(Same(rest, fill.expand_as(rest).contiguous())) << "padding";
    }
    EXPECT_TRUE(Same(x.NestedLike(padded)[1], elements[1]));
    EXPECT_TRUE(Same(NestedTensor::FromState(x.State()).concat(), x.concat()));
    EXPECT_TRUE(Same(x.Index({Slice(1, 2)}).nested()[0], elements[1]));
    EXPECT_TRUE(Same(nested::cat({x, x})[3], elements[1]));
    EXPECT_EQ(x.mask().scalar_type(), torch::kBool);
    EXPECT_TRUE(Same(x.to(torch::kFloat64).to(GetParam()).concat(), x.concat()));
  }
}

TEST_P(Dtypes, ComputeAsTheElementsAlone) {
  if (c10::isFloat8Type(GetParam())) GTEST_SKIP() << "LibTorch computes nothing in 8-bit floats";
  for (const Elements& elements : Batches()) {
    const NestedTensor x(elements);
    const auto expect = [&](const NestedTensor& found, const std::function<Tensor(const Tensor&)>& fn,
                            const char* what) {
      for (int64_t i = 0; i < 2; ++i) {
        const Tensor here = found[i], wanted = fn(elements[static_cast<size_t>(i)]);
        EXPECT_EQ(here.scalar_type(), wanted.scalar_type()) << what;
        // The same kernels on the same numbers, but vectorised over other strides: an ulp of half precision is 1e-2 /
        // 8.
        EXPECT_TRUE(torch::allclose(here.to(torch::kComplexDouble), wanted.to(torch::kComplexDouble), 2e-3, 1e-6))
            << what;
      }
    };
    expect(x * x, [](const Tensor& t) { return t * t; }, "x * x");
    expect(x + 1, [](const Tensor& t) { return t + 1; }, "x + 1");
    expect(x + 1.5, [](const Tensor& t) { return t + 1.5; }, "x + 1.5");
    expect(x == x, [](const Tensor& t) { return t == t; }, "x == x");
    expect(nested::exp(x), [](const Tensor& t) { return torch::exp(t); }, "exp");
    expect(nested::flip(x, {2}), [](const Tensor& t) { return t.flip({1}); }, "flip");
    expect(nested::transpose(x, 1, 2), [](const Tensor& t) { return t.t(); }, "transpose");
    expect(nested::cumsum(x, 1), [](const Tensor& t) { return t.cumsum(0); }, "cumsum");
    const Tensor sums = nested::sum(x, 0).dense();
    for (int64_t i = 0; i < 2; ++i) EXPECT_TRUE(Same(sums[i], elements[static_cast<size_t>(i)].sum())) << "sum";
  }
}

INSTANTIATE_TEST_SUITE_P(All, Dtypes,
                         ::testing::Values(torch::kBool, torch::kUInt8, torch::kInt8, torch::kInt16, torch::kInt32,
                                           torch::kInt64, torch::kFloat16, torch::kBFloat16, torch::kFloat32,
                                           torch::kFloat64, torch::kComplexFloat, torch::kComplexDouble,
                                           torch::kFloat8_e4m3fn, torch::kFloat8_e5m2),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

TEST(Use, WithoutGradientsNothingIsRecorded) {
  NestedTensor x({torch::ones({2, 3}), torch::ones({1, 3})});
  x.requires_grad_();
  const torch::NoGradGuard no_grad;
  EXPECT_FALSE((x * 2).requires_grad());
  EXPECT_FALSE(x.tensor().requires_grad());
  EXPECT_FALSE(nested::sum(nested::softmax(x, 1)).dense().requires_grad());
  const torch::InferenceMode inference;
  const NestedTensor y({torch::ones({2, 3}), torch::ones({1, 3})});
  EXPECT_EQ(y.tensor().sum().item<float>(), 9) << "values without version counters can be padded";
  EXPECT_EQ(y.tensor().sum().item<float>(), 9);
}

TEST(Use, AnOptimizerFitsParametersThroughNestedBatchesAndNestedParameters) {
  torch::manual_seed(5);
  torch::nn::Linear linear(3, 1);
  NestedTensor shift({torch::zeros({2, 1}), torch::zeros({4, 1})});  // a parameter of its own for each row
  shift.requires_grad_();
  std::vector<Tensor> parameters = linear->parameters();
  parameters.push_back(shift.values());
  torch::optim::SGD optimizer(parameters, torch::optim::SGDOptions(0.1));
  const NestedTensor x({torch::randn({2, 3}), torch::randn({4, 3})}), y({torch::randn({2, 1}), torch::randn({4, 1})});
  const auto loss = [&] {
    return nested::mse_loss(nested::Apply(x, [&](const Tensor& t) { return linear(t); }) + shift, y);
  };
  const double before = loss().item<double>();
  const Tensor padded = shift.detach().tensor();
  for (int step = 0; step < 200; ++step) {
    optimizer.zero_grad();
    loss().backward();
    optimizer.step();
  }
  EXPECT_LT(loss().item<double>(), before / 10);
  EXPECT_FALSE(torch::equal(shift.tensor(), padded)) << "the padded view follows the step";
  EXPECT_TRUE(torch::equal(shift.tensor()[0].narrow(0, 0, 2), shift[0]));
}

TEST(Use, DropoutDropsRealEntriesAndKeepsTheirMean) {
  torch::manual_seed(7);
  const NestedTensor x({torch::ones({300, 10}), torch::ones({700, 10})});
  const NestedTensor dropped = nested::dropout(x, 0.25, true);
  const double kept = nested::count_nonzero(dropped).dense().item<double>() / 10000;
  EXPECT_NEAR(kept, 0.75, 0.02);  // 10000 coins: the standard deviation is 0.0043
  EXPECT_TRUE(torch::allclose(dropped.values().max(), torch::tensor(1 / 0.75F)));
  EXPECT_TRUE(nested::equal(nested::dropout(x, 0.25, false), x));
  EXPECT_EQ(dropped.tensor()[0].narrow(0, 300, 400).abs().sum().item<float>(), 0) << "padding stays padding";
}

TEST(Use, ElementsNeedNotBeContiguous) {
  const Tensor whole = torch::arange(24.).reshape({4, 6});
  const Elements elements = {whole.t(), whole.slice(1, 0, 6, 2).t().flip({0}), whole.narrow(1, 1, 4).expand({4, 4})};
  const NestedTensor x(elements);
  for (int64_t i = 0; i < 3; ++i) EXPECT_TRUE(torch::equal(x[i], elements[static_cast<size_t>(i)])) << i;
  const Tensor padded = torch::arange(12.).reshape({3, 2, 2}).transpose(0, 1);  // 2 x 3 x 2
  const NestedTensor like({torch::zeros({3, 2}), torch::zeros({1, 2})});
  EXPECT_TRUE(torch::equal(like.NestedLike(padded)[1], padded[1].narrow(0, 0, 1)));
  EXPECT_TRUE(torch::equal((like + padded)[0], padded[0]));
}

TEST(Use, StatesGoThroughFilesOfTensors) {
  NestedOptions options;
  options.requires_grad = true;
  options.batch_first = false;
  options.padding_value = -1.5;
  const NestedTensor x(Elements{torch::randn({2, 3}), torch::randn({1, 3})}, options);
  const NestedTensor none = x.detach().Index({Slice(0, 0)}).nested();
  const std::string path = ::testing::TempDir() + "/athanor_nested_state.safetensors";
  for (const NestedTensor& one : {x, none}) {
    ASSERT_TRUE(WriteTensorFile(path, one.State(), {}).ok());
    const auto file = ReadTensorFile(path);
    ASSERT_TRUE(file.ok()) << file.status();
    const NestedTensor back = NestedTensor::FromState(file->tensors);
    EXPECT_TRUE(nested::equal(back, one));
    EXPECT_EQ(back.view(), one.view());
    EXPECT_EQ(back.requires_grad(), one.requires_grad());
    EXPECT_EQ(back.shape(), one.shape());
  }
  std::remove(path.c_str());
}

}  // namespace
}  // namespace athanor
