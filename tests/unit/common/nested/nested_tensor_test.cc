// What must hold for nested tensors whatever the numbers are: packing and unpacking are inverse, operations equal those
// on the elements alone, gradients equal differences, layers equal their dense selves. Numbers: tests/oracle.
#include "athanor/nested/tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "athanor/nested/ops/arithmetic.h"
#include "athanor/nested/ops/attention.h"
#include "athanor/nested/ops/convolution.h"
#include "athanor/nested/ops/layers.h"
#include "athanor/nested/ops/linalg.h"
#include "athanor/nested/ops/loss.h"
#include "athanor/nested/ops/reduce.h"
#include "athanor/nested/ops/shape.h"
#include "athanor/nested/pn_tensor.h"
#include "tests/unit/common/nested/error_message.h"

namespace athanor {
namespace {

using ::testing::HasSubstr;
using torch::Tensor;
using Elements = std::vector<Tensor>;
using Op = std::function<NestedTensor(const NestedTensor&)>;
using DenseOp = std::function<Tensor(const Tensor&)>;

Elements Random(const std::vector<std::vector<int64_t>>& shapes, torch::Dtype dtype = torch::kFloat64) {
  Elements elements;
  for (const auto& shape : shapes) elements.push_back(torch::randn(shape, torch::kFloat64).to(dtype));
  return elements;
}

const std::vector<std::vector<std::vector<int64_t>>> kShapes = {
    {{3, 4}, {1, 4}, {2, 4}}, {{2, 3}, {3, 2}}, {{4, 3}, {4, 1}},       {{2, 4}, {2, 4}},
    {{0, 4}, {3, 4}},         {{5}, {2}, {7}},  {{2, 3, 4}, {5, 3, 4}}, {{2, 3, 4}, {4, 3, 1}}};

class Packing : public ::testing::TestWithParam<size_t> {};

TEST_P(Packing, IsInverseToUnpacking) {
  torch::manual_seed(3);
  for (const auto dtype : {torch::kFloat64, torch::kFloat32, torch::kBFloat16, torch::kInt64}) {
    const Elements elements = Random(kShapes[GetParam()], dtype);
    const NestedTensor x(elements);
    const auto same = [&](const NestedTensor& other, const char* how) {
      ASSERT_EQ(other.len(), x.len()) << how;
      for (size_t i = 0; i < elements.size(); ++i)
        EXPECT_TRUE(torch::equal(other.Element(static_cast<int64_t>(i)), elements[i])) << how << ", element " << i;
    };
    same(x, "unpacked");
    const auto [values, shapes] = x.concatenate();
    same(NestedTensor::FromConcatenated(values, shapes), "concatenated");
    same(NestedTensor::FromState(x.State()), "saved");
    same(x.NestedLike(x.tensor()), "padded");
    EXPECT_EQ(x.numel(), [&] {
      int64_t sum = 0;
      for (const Tensor& element : elements) sum += element.numel();
      return sum;
    }());
    EXPECT_LE(x.values().numel(), x.tensor().numel()) << "no more memory than the data";
    std::vector<NestedValue> alone;
    for (const Tensor& element : elements) alone.emplace_back(NestedTensor(element));
    same(nested::cat(alone), "batch by batch");
    NestedTensor other_view = x;
    other_view.set_batch_first(false);
    same(other_view, "batch second");
  }
}
INSTANTIATE_TEST_SUITE_P(Shapes, Packing, ::testing::Range<size_t>(0, kShapes.size()));

struct Named {
  const char* name;
  Op op;
  DenseOp dense;
};

const std::vector<Named>& ElementOps() {
  static const Tensor weight = torch::randn({5, 4}, torch::kFloat64), gain = torch::randn({4}, torch::kFloat64);
  static const std::vector<Named> ops = {
      {"exp", [](const auto& x) { return nested::exp(x); }, [](const Tensor& t) { return torch::exp(t); }},
      {"gelu", [](const auto& x) { return nested::gelu(x); }, [](const Tensor& t) { return torch::gelu(t); }},
      {"square plus one", [](const auto& x) { return x * x + 1; }, [](const Tensor& t) { return t * t + 1; }},
      {"linear", [](const auto& x) { return nested::linear(x, weight); },
       [](const Tensor& t) { return torch::linear(t, weight); }},
      {"layer_norm", [](const auto& x) { return nested::layer_norm(x, {4}, gain); },
       [](const Tensor& t) { return torch::layer_norm(t, {4}, gain); }},
      {"rms_norm", [](const auto& x) { return nested::rms_norm(x, {4}, gain); },
       [](const Tensor& t) { return torch::rms_norm(t, {4}, gain); }},
      {"normalize", [](const auto& x) { return nested::normalize(x, 2, -1); },
       [](const Tensor& t) {
         return torch::nn::functional::normalize(t, torch::nn::functional::NormalizeFuncOptions().dim(-1));
       }},
      {"softmax over the sequence", [](const auto& x) { return nested::softmax(x, 1); },
       [](const Tensor& t) { return torch::softmax(t, 0); }},
      {"softmax over the last dim", [](const auto& x) { return nested::softmax(x, -1); },
       [](const Tensor& t) { return torch::softmax(t, -1); }},
      {"log_softmax", [](const auto& x) { return nested::log_softmax(x, 1); },
       [](const Tensor& t) { return torch::log_softmax(t, 0); }},
      {"cumsum", [](const auto& x) { return nested::cumsum(x, 1); },
       [](const Tensor& t) { return torch::cumsum(t, 0); }},
      {"flip", [](const auto& x) { return nested::flip(x, {1}); }, [](const Tensor& t) { return torch::flip(t, {0}); }},
      {"transpose", [](const auto& x) { return nested::transpose(x, 1, 2); },
       [](const Tensor& t) { return t.transpose(0, 1); }},
      {"matmul with itself", [](const auto& x) { return nested::matmul(x, nested::transpose(x, 1, 2)); },
       [](const Tensor& t) { return torch::matmul(t, t.t()); }},
      {"pad", [](const auto& x) { return nested::pad(x, {1, 2}); },
       [](const Tensor& t) { return torch::constant_pad_nd(t, {1, 2}); }},
      {"attention", [](const auto& x) { return nested::scaled_dot_product_attention(x, x, x, {.is_causal = true}); },
       [](const Tensor& t) {
         const Tensor b = t.unsqueeze(0).unsqueeze(0);
         return at::scaled_dot_product_attention(b, b, b, {}, 0, true).squeeze(0).squeeze(0);
       }},
  };
  return ops;
}

TEST(Operations, EqualThoseOnEachElementAlone) {
  torch::manual_seed(5);
  const Elements elements = Random({{3, 4}, {1, 4}, {6, 4}});
  for (const Named& named : ElementOps()) {
    const NestedTensor found = named.op(NestedTensor(elements));
    for (size_t i = 0; i < elements.size(); ++i) {
      const Tensor expected = named.dense(elements[i]), here = found.Element(static_cast<int64_t>(i));
      EXPECT_TRUE(here.sizes() == expected.sizes() && torch::allclose(here, expected, 1e-10, 1e-12))
          << named.name << ", element " << i << ":\n"
          << here << "\n"
          << expected;
    }
  }
}

// Central differences in float64 against autograd, through the packed values.
TEST(Operations, GradientsEqualDifferences) {
  torch::manual_seed(7);
  const Elements elements = Random({{2, 4}, {3, 4}});
  for (const Named& named : ElementOps()) {
    const auto loss = [&](const NestedTensor& x) {
      const Tensor out = named.op(x).values();
      return (out * torch::arange(1, out.numel() + 1, torch::kFloat64).reshape(out.sizes()).sin()).sum();
    };
    NestedTensor x(elements);
    x.requires_grad_();
    loss(x).backward();
    const Tensor analytic = x.grad().flatten();
    const NestedTensor at(elements);
    constexpr double kStep = 1e-6;
    for (int64_t i = 0; i < at.numel(); i += 3) {
      const auto moved = [&](double by) {
        Tensor values = at.values().clone();
        values.view({-1})[i] += by;
        return loss(at.WithValues(values)).item<double>();
      };
      EXPECT_NEAR(analytic[i].item<double>(), (moved(kStep) - moved(-kStep)) / (2 * kStep), 1e-5)
          << named.name << ", entry " << i;
    }
  }
}

TEST(Operations, ReductionsIgnorePadding) {
  NestedTensor x(Random({{3, 4}, {1, 4}}));
  x.set_padding_value(1e30);
  const double all = x.values().sum().item<double>();
  EXPECT_NEAR(nested::sum(x).dense().item<double>(), all, 1e-9);
  EXPECT_NEAR(nested::mean(x).dense().item<double>(), all / 16, 1e-9);
  EXPECT_LT(nested::max(x).item<double>(), 1e10);
  EXPECT_TRUE(torch::allclose(nested::sum(x, 0).dense()[1], x[1].sum()));
}

TEST(Operations, WorkOnAShardAsOnTheWhole) {
  const NestedTensor x(Random({{3, 4}, {1, 4}, {2, 4}, {5, 4}}));
  const NestedTensor whole = nested::softmax(x * 2, 1);
  std::vector<NestedValue> parts;
  for (const NestedTensor& part : nested::split(x, 2)) parts.emplace_back(nested::softmax(part * 2, 1));
  EXPECT_TRUE(nested::allclose(nested::cat(parts), whole));
}

TEST(Modules, ActOnThePackedRows) {
  torch::manual_seed(11);
  torch::nn::Linear linear(4, 6);
  torch::nn::LayerNorm norm(torch::nn::LayerNormOptions({6}));
  torch::nn::Embedding embedding(10, 4);
  const NestedTensor tokens({torch::tensor({1, 2, 3}), torch::tensor({9})});
  const NestedTensor out = nested::Apply(tokens, [&](const Tensor& t) { return norm(linear(embedding(t))); });
  EXPECT_EQ(out.shape(), (std::vector<int64_t>{2, 3, 6}));
  EXPECT_TRUE(torch::allclose(out[1], norm(linear(embedding(torch::tensor({9}))))));
  nested::sum(out * out).dense().backward();
  EXPECT_TRUE(linear->weight.grad().defined() && embedding->weight.grad().defined());
}

TEST(Modules, TransformerEncoderLayerEqualsTheDenseOneWithAKeyMask) {
  torch::manual_seed(13);
  torch::nn::TransformerEncoderLayer layer(torch::nn::TransformerEncoderLayerOptions(8, 2).dim_feedforward(16));
  layer->to(torch::kFloat64);
  layer->eval();
  const NestedTensor x(Random({{5, 8}, {2, 8}}));
  const NestedTensor found = nested::transformer_encoder_layer(x, layer);
  NestedTensor padded = x;
  padded.set_batch_first(false);  // torch's module wants L x B x E
  const Tensor key_padding = torch::arange(5).unsqueeze(0) >= torch::tensor({5, 2}).unsqueeze(1);
  const Tensor dense = layer(padded.tensor(), Tensor(), key_padding);
  EXPECT_TRUE(torch::allclose(found[0], dense.select(1, 0), 1e-8, 1e-8));
  EXPECT_TRUE(torch::allclose(found[1], dense.select(1, 1).narrow(0, 0, 2), 1e-8, 1e-8));
}

TEST(Losses, AreOverRealEntriesOnly) {
  const NestedTensor logits(Random({{3, 4}, {1, 4}}));
  const NestedTensor labels({torch::tensor({0, 1, 2}), torch::tensor({3})});
  const Tensor expected =
      torch::nn::functional::cross_entropy(torch::cat({logits[0], logits[1]}), torch::tensor({0, 1, 2, 3}));
  EXPECT_TRUE(torch::allclose(nested::cross_entropy(logits, labels), expected));
}

TEST(Conversions, RoundTripThroughAtensOwnAndCollation) {
  const Elements elements = Random({{3, 4}, {1, 4}}, torch::kFloat32);
  const NestedTensor x(elements);
  EXPECT_TRUE(nested::equal(NestedTensor::FromTorchNested(x.ToTorchNested()), x));
  EXPECT_TRUE(nested::equal(CollateNested(elements), x));
  const PNTensor one = MakePNTensor(std::vector<float>{1, 2, 3});
  EXPECT_TRUE(torch::equal(one.tensor(), one.concat()));
  EXPECT_TRUE(one.mask().all().item<bool>());
  EXPECT_EQ(CollateNested({one, MakePNTensor(std::vector<float>{4})}).shape(), (std::vector<int64_t>{2, 3}));
}

TEST(Errors, NameWhatWasFound) {
  const NestedTensor x({torch::ones({2, 3}), torch::ones({1, 3})});
  EXPECT_THAT(MessageOf<c10::ValueError>([] { NestedTensor({torch::ones({2}), torch::ones({2, 2})}); }),
              HasSubstr("2"));
  EXPECT_THAT(MessageOf<c10::IndexError>([&] { x.Element(5); }), HasSubstr("5"));
  EXPECT_THAT(MessageOf<c10::ValueError>([&] { nested::softmax(x, 0); }), HasSubstr("batch dimension"));
  EXPECT_THAT(MessageOf<c10::ValueError>([&] { nested::add(x, NestedTensor({torch::ones({2, 3})})); }),
              HasSubstr("batch length mismatch"));
  EXPECT_THAT(MessageOf<c10::ValueError>([&] { nested::einsum("bij", {x}); }), HasSubstr("'->'"));
  EXPECT_THAT(MessageOf<c10::ValueError>([&] { nested::interpolate(x, {}, {}); }), HasSubstr("exactly one"));
  auto state = x.State();
  state.erase("sizes");
  EXPECT_THROW(NestedTensor::FromState(state), c10::ValueError);
}

}  // namespace
}  // namespace athanor
