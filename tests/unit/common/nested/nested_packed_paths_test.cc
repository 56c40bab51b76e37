// Operations that run on the packed values of a whole batch: the same numbers as torch's function on each element
// alone, whatever varies, with equal elements, half precision, infinities and NaN, and clear errors where there is no
// number.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "athanor/nested/ops/arithmetic.h"
#include "athanor/nested/ops/attention.h"
#include "athanor/nested/ops/convolution.h"
#include "athanor/nested/ops/layers.h"
#include "athanor/nested/ops/linalg.h"
#include "athanor/nested/ops/reduce.h"
#include "athanor/nested/ops/segment.h"
#include "athanor/nested/ops/shape.h"
#include "tests/unit/common/nested/error_message.h"

namespace athanor {
namespace {

using ::testing::HasSubstr;
using torch::Tensor;
using Elements = std::vector<Tensor>;
using Shapes = std::vector<std::vector<int64_t>>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Elements Random(const Shapes& shapes) {
  Elements elements;
  for (const auto& shape : shapes) elements.push_back(torch::randn(shape, torch::kFloat64));
  return elements;
}

struct Operation {
  const char* name;
  std::function<NestedValue(const NestedTensor&)> nested;
  std::function<Tensor(const Tensor&)> alone;
};

// Float64 against float64 by another order of the same additions: 1e-12.
void ExpectAlike(const Operation& operation, const Elements& elements, const NestedTensor& x,
                 double tolerance = 1e-12) {
  const NestedValue found = operation.nested(x);
  for (size_t b = 0; b < elements.size(); ++b) {
    const Tensor expected = operation.alone(elements[b]);
    const Tensor here =
        found.is_nested() ? found.nested().Element(static_cast<int64_t>(b)) : found.dense()[static_cast<int64_t>(b)];
    ASSERT_EQ(here.sizes(), expected.sizes()) << operation.name << " of " << elements[b].sizes();
    EXPECT_EQ(here.scalar_type(), expected.scalar_type()) << operation.name;
    EXPECT_TRUE(torch::allclose(here.to(torch::kFloat64), expected.to(torch::kFloat64), tolerance, tolerance, true))
        << operation.name << ", element " << b << " of shape " << elements[b].sizes() << ":\n"
        << here << "\n"
        << expected;
  }
}

// Over element dim 0 (dim 1 of the batch) and dim 1, with one varying dim of two and of three.
const std::vector<Shapes> kTwoDims = {{{3, 4}, {1, 4}, {2, 4}}, {{2, 3}, {3, 2}}, {{4, 3}, {4, 1}},
                                      {{2, 4}, {2, 4}},         {{5, 4}},         {{40, 256}, {1, 256}, {70, 256}}};

std::vector<Operation> Reductions() {
  std::vector<Operation> operations;
#define ATHANOR_CASE(name, call, dense_call) \
  operations.push_back({name, [](const NestedTensor& x) { return call; }, [](const Tensor& t) { return dense_call; }});
#define ATHANOR_ALONG(d)                                                           \
  ATHANOR_CASE("sum", nested::sum(x, d + 1), t.sum(d))                             \
  ATHANOR_CASE("mean", nested::mean(x, d + 1), t.mean(d))                          \
  ATHANOR_CASE("amax", nested::amax(x, d + 1), t.amax(d))                          \
  ATHANOR_CASE("amin", nested::amin(x, d + 1), t.amin(d))                          \
  ATHANOR_CASE("max", nested::max(x, d + 1).first, std::get<0>(t.max(d)))          \
  ATHANOR_CASE("max's index", nested::max(x, d + 1).second, std::get<1>(t.max(d))) \
  ATHANOR_CASE("min", nested::min(x, d + 1).first, std::get<0>(t.min(d)))          \
  ATHANOR_CASE("min's index", nested::min(x, d + 1).second, std::get<1>(t.min(d))) \
  ATHANOR_CASE("argmax", nested::argmax(x, d + 1), t.argmax(d))                    \
  ATHANOR_CASE("argmin", nested::argmin(x, d + 1), t.argmin(d))                    \
  ATHANOR_CASE("var", nested::var(x, d + 1), t.var(d))                             \
  ATHANOR_CASE("std", nested::std(x, d + 1, 0), t.std(d, false))                   \
  ATHANOR_CASE("softmax", nested::softmax(x, d + 1), t.softmax(d))                 \
  ATHANOR_CASE("log_softmax", nested::log_softmax(x, d + 1), t.log_softmax(d))
  ATHANOR_ALONG(0)
  ATHANOR_ALONG(1)
#undef ATHANOR_ALONG
  ATHANOR_CASE("sum of both", nested::sum(x, {1, 2}), t.sum())
  ATHANOR_CASE("amax of both", nested::amax(x, {1, 2}), t.amax())
  ATHANOR_CASE("var of both", nested::var(x, {1, 2}), t.var())
  ATHANOR_CASE("sum of each", nested::sum(x, 0), t.sum())
  ATHANOR_CASE("max of each", nested::max(x, 0).first, t.max())
  ATHANOR_CASE("max of each, index", nested::max(x, 0).second, t.argmax())
  ATHANOR_CASE("min of each, index", nested::min(x, 0).second, t.argmin())
#undef ATHANOR_CASE
  return operations;
}

TEST(PackedPaths, ReductionsEqualThoseOfEachElement) {
  torch::manual_seed(3);
  for (const Shapes& shapes : kTwoDims) {
    for (const Operation& operation : Reductions()) {
      const Elements elements = Random(shapes);
      ExpectAlike(operation, elements, NestedTensor(elements));
    }
  }
}

// On a CPU max and argmax go element by element: what a GPU takes is called itself.
TEST(PackedPaths, ExtremesOfSegmentsEqualThoseOfEachElement) {
  torch::manual_seed(4);
  for (const Shapes& shapes : kTwoDims) {
    const Elements elements = Random(shapes);
    const NestedTensor x(elements);
    for (const std::vector<int64_t>& dims : std::vector<std::vector<int64_t>>{{0}, {1}, {0, 1}}) {
      if (!nested::CanSegment(x, dims)) continue;
      for (const bool largest : {false, true}) {
        const auto [values, places] = nested::SegmentExtreme(x, dims, largest);
        for (size_t b = 0; b < elements.size(); ++b) {
          const bool whole = dims.size() == 2;
          // In packed order: varying dims first.
          const Tensor t = whole ? elements[b].permute(x.structure()->permutation()).flatten() : elements[b];
          const auto [value, place] = largest ? t.max(whole ? 0 : dims[0]) : t.min(whole ? 0 : dims[0]);
          EXPECT_TRUE(torch::equal(values[static_cast<int64_t>(b)], value)) << shapes;
          EXPECT_TRUE(torch::equal(places[static_cast<int64_t>(b)], place)) << shapes;
        }
      }
    }
  }
  NestedTensor ties({torch::tensor({{1., 5.}, {3., 5.}, {3., 2.}}), torch::tensor({{4., 1.}})});
  ties.requires_grad_();
  const auto [values, places] = nested::SegmentExtreme(ties, {0}, true);
  EXPECT_TRUE(torch::equal(places, torch::tensor({{1, 0}, {0, 0}})));
  values.sum().backward();
  EXPECT_TRUE(torch::equal(ties.grad(), torch::tensor({{0., 1.}, {1., 0.}, {0., 0.}, {1., 1.}}))) << "all to the first";
  ties.requires_grad_(false);
  ties.requires_grad_();
  ties.values().mutable_grad().reset();
  nested::amax(ties, 1).dense().sum().backward();
  EXPECT_TRUE(torch::equal(ties.grad(), torch::tensor({{0., .5}, {.5, .5}, {.5, 0.}, {1., 1.}}))) << "shared";
}

TEST(PackedPaths, ExtremesTakeTheFirstOfTiesAndNaN) {
  const Elements ties = {
      torch::tensor({{1., 5.}, {3., 5.}, {3., 2.}}, torch::kFloat64),
      torch::tensor({{static_cast<double>(NAN), 1.}, {4., 1.}, {static_cast<double>(NAN), 0.}}, torch::kFloat64)};
  for (const Operation& operation : Reductions()) ExpectAlike(operation, ties, NestedTensor(ties));
}

TEST(PackedPaths, SoftmaxOfInfinitiesIsTorchs) {
  const Elements elements = {torch::tensor({{1., kInfinity}, {2., -kInfinity}}, torch::kFloat64),
                             torch::tensor({{-kInfinity, -kInfinity}}, torch::kFloat64)};
  for (const Operation& operation : Reductions()) {
    if (std::string(operation.name).find("softmax") != std::string::npos) {
      ExpectAlike(operation, elements, NestedTensor(elements));
    }
  }
}

TEST(PackedPaths, KeepDimsAndDtypes) {
  const Elements elements = Random({{3, 4}, {1, 4}});
  const NestedTensor x(elements);
  for (const Operation& operation :
       std::vector<Operation>{{"max", [](const auto& t) { return nested::max(t, 1, true).first; },
                               [](const Tensor& t) { return std::get<0>(t.max(0, true)); }},
                              {"amax", [](const auto& t) { return nested::amax(t, {1, 2}, true); },
                               [](const Tensor& t) { return t.amax(torch::IntArrayRef({0, 1}), true); }},
                              {"var", [](const auto& t) { return nested::var(t, 1, 0, true); },
                               [](const Tensor& t) { return t.var(torch::IntArrayRef({0}), torch::Scalar(0), true); }},
                              {"argmin", [](const auto& t) { return nested::argmin(t, 1, true); },
                               [](const Tensor& t) { return t.argmin(0, true); }}}) {
    ExpectAlike(operation, elements, x);
  }
  const NestedTensor whole = x.to(torch::kInt32);
  EXPECT_EQ(nested::sum(whole, 1).dense().scalar_type(), torch::kInt64);
  EXPECT_EQ(nested::sum(whole, 1, false, torch::kInt32).dense().scalar_type(), torch::kInt32);
  EXPECT_EQ(nested::sum(whole, 0, false, torch::kInt32).dense().scalar_type(), torch::kInt32);
  EXPECT_EQ(nested::sum(x, 1, false, torch::kFloat32).dense().scalar_type(), torch::kFloat32);
  const NestedTensor half = x.to(torch::kBFloat16);
  EXPECT_EQ(nested::var(half, 1, 0).dense().scalar_type(), torch::kBFloat16);
  EXPECT_EQ(nested::amax(half, 1).dense().scalar_type(), torch::kBFloat16);
}

TEST(PackedPaths, ShapeOperationsEqualThoseOfEachElement) {
  torch::manual_seed(5);
  const std::vector<Shapes> batches = {{{2, 4, 6}, {5, 4, 6}}, {{4, 2, 6}, {4, 3, 6}}, {{4, 6, 2}, {4, 6, 1}},
                                       {{4, 4, 6}, {4, 4, 6}}, {{2, 4, 6}, {3, 2, 6}}, {{2, 1, 6}, {3, 1, 6}},
                                       {{1, 2, 6}, {1, 3, 6}}, {{1, 4, 6}, {1, 4, 6}}, {{0, 4, 6}, {3, 4, 6}}};
  const std::vector<Operation> operations = {
      {"flatten 1..2", [](const auto& x) { return nested::flatten(x, 1, 2); },
       [](const Tensor& t) { return t.flatten(0, 1); }},
      {"flatten 2..3", [](const auto& x) { return nested::flatten(x, 2, 3); },
       [](const Tensor& t) { return t.flatten(1, 2); }},
      {"flatten 1..3", [](const auto& x) { return nested::flatten(x, 1, 3); },
       [](const Tensor& t) { return t.flatten(0, 2); }},
      {"squeeze", [](const auto& x) { return nested::squeeze(x); }, [](const Tensor& t) { return t; }},
      {"unsqueeze 1", [](const auto& x) { return nested::unsqueeze(x, 1); },
       [](const Tensor& t) { return t.unsqueeze(0); }},
      {"unsqueeze 2", [](const auto& x) { return nested::unsqueeze(x, 2); },
       [](const Tensor& t) { return t.unsqueeze(1); }},
      {"unsqueeze 4", [](const auto& x) { return nested::unsqueeze(x, -1); },
       [](const Tensor& t) { return t.unsqueeze(-1); }}};
  for (const Shapes& shapes : batches) {
    const Elements elements = Random(shapes);
    const NestedTensor x(elements);
    for (Operation operation : operations) {
      if (std::string(operation.name) == "squeeze") {  // dims of size 1 in every element
        std::vector<int64_t> dims;
        for (int64_t d = 0; d < 3; ++d) {
          bool one = true;
          for (const Tensor& t : elements) one = one && t.size(d) == 1;
          if (one) dims.push_back(d);
        }
        operation.alone = [dims](const Tensor& t) { return t.squeeze(dims); };
      }
      ExpectAlike(operation, elements, x, 0);
    }
    for (int64_t dim = 0; dim < 3; ++dim) {  // where the size is the same in all
      if (elements[0].size(dim) != elements[1].size(dim) || elements[0].size(dim) % 2 != 0) continue;
      ExpectAlike({"unflatten", [dim](const auto& t) { return nested::unflatten(t, dim + 1, {2, -1}); },
                   [dim](const Tensor& t) { return t.unflatten(dim, {2, -1}); }},
                  elements, x, 0);
    }
  }
}

TEST(PackedPaths, ABatchWithoutElementsHasItsDims) {
  const NestedTensor x = nested::split(NestedTensor(Random({{2, 4, 6}, {3, 4, 6}})), {0, 2})[0];
  ASSERT_EQ(x.len(), 0);
  const auto dims = [](const NestedTensor& t) { return t.structure()->Dims(); };
  EXPECT_EQ(dims(nested::unflatten(x, 2, {2, -1})), (std::vector<int64_t>{-1, 2, 2, 6}));
  EXPECT_EQ(dims(nested::flatten(x, 2, 3).nested()), (std::vector<int64_t>{-1, 24}));
  EXPECT_EQ(dims(nested::flatten(x, 1, 2).nested()), (std::vector<int64_t>{-1, 6}));
  EXPECT_EQ(dims(nested::unsqueeze(x, -1)), (std::vector<int64_t>{-1, 4, 6, 1}));
  EXPECT_EQ(dims(nested::squeeze(nested::unsqueeze(x, 2), 2)), (std::vector<int64_t>{-1, 4, 6}));
  EXPECT_EQ(nested::softmax(x, 1).len(), 0);
  EXPECT_EQ(nested::multi_head_attention(
                nested::flatten(x, 2, 3).nested(), nested::flatten(x, 2, 3).nested(), nested::flatten(x, 2, 3).nested(),
                {torch::ones({72, 24}, torch::kFloat64), {}, torch::ones({24, 24}, torch::kFloat64), {}, 2})
                .len(),
            0);
}

TEST(PackedPaths, JoiningWhatWasSplitGivesTheWhole) {
  for (const Shapes& shapes : std::vector<Shapes>{{{3, 4}, {1, 4}, {2, 4}},
                                                  {{2, 3}, {3, 2}, {2, 2}},
                                                  {{4, 3}, {4, 1}, {4, 2}},
                                                  {{2, 4}, {2, 4}, {2, 4}},
                                                  {{}, {}, {}}}) {
    const Elements elements = Random(shapes);
    const NestedTensor x(elements);
    for (const std::vector<int64_t>& sizes :
         std::vector<std::vector<int64_t>>{{1, 1, 1}, {2, 1}, {1, 2}, {3}, {0, 3}}) {
      std::vector<NestedValue> parts;
      size_t next = 0;
      for (const NestedTensor& part : nested::split(x, sizes)) {
        for (int64_t i = 0; i < part.len(); ++i) EXPECT_TRUE(torch::equal(part[i], elements[next++]));
        if (part.len() > 0) parts.emplace_back(part);
      }
      EXPECT_EQ(next, elements.size());
      EXPECT_TRUE(nested::equal(nested::cat(parts), x)) << shapes;
    }
  }
  const NestedTensor x(Random({{3, 4}, {1, 4}}));
  EXPECT_TRUE(nested::split(x, 1)[1].values().is_alias_of(x.values())) << "parts are views, as torch's are";
  const NestedTensor mixed = nested::cat({x, torch::ones({2, 4}, torch::kFloat64), x.to(torch::kFloat32)});
  EXPECT_EQ(mixed.dtype(), torch::kFloat64);
  EXPECT_EQ(mixed.shape(), (std::vector<int64_t>{5, 3, 4}));
  EXPECT_TRUE(torch::equal(mixed[2], torch::ones({2, 4}, torch::kFloat64)));
}

TEST(PackedPaths, LayersOverChannelsEqualThoseOfEachElement) {
  torch::manual_seed(7);
  const Tensor weight = torch::randn({3}, torch::kFloat64), mean = torch::randn({3}, torch::kFloat64),
               var = torch::rand({3}, torch::kFloat64) + 0.5;
  for (const Shapes& shapes : std::vector<Shapes>{{{3, 2}, {3, 5}}, {{3, 2, 4}, {3, 5, 1}}, {{3, 4}, {3, 4}}}) {
    const Elements elements = Random(shapes);
    ExpectAlike({"batch_norm", [&](const auto& x) { return nested::batch_norm(x, mean, var, weight); },
                 [&](const Tensor& t) {
                   return torch::batch_norm(t.unsqueeze(0), weight, {}, mean, var, false, 0, 1e-5, false).squeeze(0);
                 }},
                elements, NestedTensor(elements));
    ExpectAlike({"prelu", [&](const auto& x) { return nested::prelu(x, weight); },
                 [&](const Tensor& t) { return torch::prelu(t.unsqueeze(0), weight).squeeze(0); }},
                elements, NestedTensor(elements));
  }
  const NestedTensor a(Random({{2, 3}, {4, 3}})), b(Random({{2, 3}, {4, 3}}));
  const NestedValue distances = nested::pairwise_distance(a, b);
  EXPECT_TRUE(torch::allclose(distances.nested()[1], torch::pairwise_distance(a[1], b[1])));
}

TEST(PackedPaths, AttentionOfRaggedAndEqualElements) {
  torch::manual_seed(9);
  torch::nn::MultiheadAttention module(torch::nn::MultiheadAttentionOptions(8, 2));
  module->to(torch::kFloat64);
  for (const Shapes& shapes :
       std::vector<Shapes>{{{5, 8}, {2, 8}, {1, 8}}, {{4, 8}, {4, 8}}, {{2, 8}, {2, 8}}, {{3, 8}}}) {
    const Elements elements = Random(shapes);
    const NestedTensor x(elements);
    ExpectAlike({"multi_head_attention",
                 [&](const auto& t) { return nested::multi_head_attention(t, t, t, nested::ParametersOf(module)); },
                 [&](const Tensor& t) {
                   const Tensor one = t.unsqueeze(1);
                   return std::get<0>(module(one, one, one)).squeeze(1);
                 }},
                elements, x, 1e-10);
  }
}

TEST(PackedPaths, SayWhichElementHasNothing) {
  const NestedTensor x({torch::ones({2, 3}), torch::ones({0, 3})});
  for (const std::function<void()>& run :
       std::vector<std::function<void()>>{[&] { nested::max(x, 1); }, [&] { nested::min(x, 0); },
                                          [&] { nested::amax(x, 1); }, [&] { nested::argmin(x, 1); }}) {
    EXPECT_THAT(MessageOf<c10::IndexError>(run), HasSubstr("element 1 of shape [0, 3]"));
  }
  EXPECT_TRUE(torch::equal(nested::max(x, 2).first.nested()[0], torch::ones({2})));
  EXPECT_EQ(nested::amax(x).dense().item<double>(), 1);
  EXPECT_TRUE(torch::equal(nested::sum(x, 1).dense()[1], torch::zeros({3})));
  EXPECT_TRUE(nested::var(x, 1).dense()[1].isnan().all().item<bool>());
  const NestedTensor sounds({torch::ones({2, 4}), torch::ones({2, 0})}),
      shorts({torch::ones({2, 4}), torch::ones({2, 1})});
  const Tensor weight = torch::ones({1, 2, 3});
  EXPECT_THAT(MessageOf<c10::ValueError>([&] { nested::conv1d(sounds, weight); }),
              HasSubstr("conv1d: element 1 of shape [2, 0]"));
  EXPECT_THAT(MessageOf<c10::ValueError>([&] { nested::conv1d(shorts, weight); }), HasSubstr("window of 3"));
  EXPECT_NO_THROW(nested::conv1d(shorts, weight, {}, {.padding = {1}}));
  EXPECT_THAT(MessageOf<c10::ValueError>([&] { nested::max_pool1d(shorts, {2}); }), HasSubstr("window of 2"));
}

TEST(PackedPaths, PoolsGiveBackWhatTheyTook) {
  const NestedTensor x(Random({{2, 4}, {2, 7}}));
  const auto [pooled, places] = nested::max_pool1d_with_indices(x, {2});
  const NestedTensor back = nested::max_unpool1d(pooled, places, {2}, {}, x);
  EXPECT_EQ(back.shape(), x.shape());
  EXPECT_TRUE(torch::equal(back.values() != 0, (back.values() == x.values())));
  EXPECT_NEAR(back.values().sum().item<double>(), pooled.values().sum().item<double>(), 1e-12);
  EXPECT_EQ(nested::max_unpool1d(pooled, places, {2})[1].size(1), 6) << "the smallest that the pool makes three of";
  const NestedTensor images(Random({{1, 4, 4}, {1, 6, 5}}));
  const NestedTensor grid =
      nested::affine_grid(NestedTensor({torch::eye(2, 3, torch::kFloat64), torch::eye(2, 3, torch::kFloat64)}), images);
  EXPECT_TRUE(nested::allclose(nested::grid_sample(images, grid), images, 1e-9, 1e-9)) << "the identity";
  const auto [some, at] = nested::fractional_max_pool2d_with_indices(images, {2}, {}, {0.5});
  EXPECT_EQ(some[1].sizes(), (std::vector<int64_t>{1, 3, 2}));
  EXPECT_TRUE(torch::equal(some[1].flatten(), images[1].flatten().take(at[1].flatten())));
  const Elements volumes = Random({{1, 2, 4, 2}, {1, 2, 2, 2}});
  ExpectAlike({"lp_pool3d", [](const auto& t) { return nested::lp_pool3d(t, 2, {2}); },
               [](const Tensor& t) { return (torch::avg_pool3d(t.square(), 2) * 8).sqrt(); }},
              volumes, NestedTensor(volumes));
}

TEST(PackedPaths, BagsOfEmbeddings) {
  const Tensor weight = torch::randn({5, 3}, torch::kFloat64);
  const NestedTensor tokens({torch::tensor({1, 4, 1}), torch::tensor({0})});
  const Tensor mean = nested::embedding_bag(tokens, weight);
  EXPECT_TRUE(torch::allclose(mean[0], (weight[1] * 2 + weight[4]) / 3));
  EXPECT_TRUE(torch::allclose(mean[1], weight[0]));
  EXPECT_TRUE(torch::allclose(nested::embedding_bag(tokens, weight, "max")[0], torch::maximum(weight[1], weight[4])));
  EXPECT_THAT(MessageOf<c10::ValueError>([&] { nested::embedding_bag(tokens, weight, "median"); }),
              HasSubstr("median"));
}

}  // namespace
}  // namespace athanor
