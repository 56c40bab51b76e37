// Operands of nested operations: dense tensors in the padded layout, numbers, other structures, batches without
// elements.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "athanor/nested/index.h"
#include "athanor/nested/ops/arithmetic.h"
#include "athanor/nested/ops/layers.h"
#include "athanor/nested/ops/linalg.h"
#include "athanor/nested/ops/loss.h"
#include "athanor/nested/ops/reduce.h"
#include "athanor/nested/ops/shape.h"
#include "athanor/nested/pn_tensor.h"

namespace athanor {
namespace {

using ::testing::ElementsAre;
using torch::Tensor;
namespace F = torch::nn::functional;

// Elements (2, 3) and (1, 3): padded 2 x 2 x 3.
NestedTensor Ragged() {
  return NestedTensor({torch::arange(6.).reshape({2, 3}), torch::arange(6., 9.).reshape({1, 3})});
}

// Every element of `found` equals fn of the operands' parts, a padded dense operand cut to the element's sizes.
void ExpectEach(const NestedTensor& found, const std::vector<Tensor>& expected, const char* what) {
  ASSERT_EQ(found.len(), static_cast<int64_t>(expected.size())) << what;
  for (size_t i = 0; i < expected.size(); ++i) {
    const Tensor here = found[static_cast<int64_t>(i)];
    EXPECT_TRUE(here.sizes() == expected[i].sizes() && torch::allclose(here, expected[i]))
        << what << ", element " << i << ":\n"
        << here << "\n"
        << expected[i];
  }
}

TEST(DenseOperands, OfThePaddedShapeGiveEachElementItsPartWhateverTheStructures) {
  torch::manual_seed(1);
  const NestedTensor a = Ragged(), column({torch::rand({2, 1}), torch::rand({1, 1})});
  const Tensor dense = torch::randn({2, 2, 3});
  const auto part = [&](int64_t b) { return dense[b].narrow(0, 0, a[b].size(0)); };
  ExpectEach(nested::addcmul(a, column, dense), {a[0] + column[0] * part(0), a[1] + column[1] * part(1)}, "addcmul");
  const NestedTensor mask = column > 0.5;
  ExpectEach(nested::where(mask, a, dense),
             {torch::where(mask[0], a[0], part(0)), torch::where(mask[1], a[1], part(1))}, "where");
  ExpectEach(nested::clamp(a, NestedValue(column), NestedValue(dense)),
             {torch::clamp(a[0], column[0], part(0)), torch::clamp(a[1], column[1], part(1))}, "clamp");
  NestedTensor second = a, other = column;
  second.set_batch_first(false);
  other.set_batch_first(false);
  ExpectEach(nested::addcmul(second, other, dense.transpose(0, 1)),
             {a[0] + column[0] * part(0), a[1] + column[1] * part(1)}, "batch second");
  const NestedTensor row({torch::rand({1, 3}), torch::rand({1, 3})});  // fits neither operand, but what they make
  ExpectEach(nested::addcmul(column, row, dense), {column[0] + row[0] * part(0), column[1] + row[1] * part(1)},
             "the joint shape");
  EXPECT_THROW(nested::addcmul(a, column, torch::ones({2, 3, 3})), c10::ValueError);
  EXPECT_THROW(nested::addcmul(a, column, torch::ones({2})), c10::ValueError);
}

TEST(DenseOperands, OfThePaddedShapeReachFunctionsThatGoElementByElement) {
  torch::manual_seed(2);
  const NestedTensor x = Ragged();
  const Tensor dense = torch::randn({2, 2, 3}), flags = dense > 0,
               places = torch::randint(0, 3, {2, 2, 3}, torch::kInt64);
  const auto part = [&](const Tensor& padded, int64_t b) { return padded[b].narrow(0, 0, x[b].size(0)); };
  ExpectEach(nested::gather(x, 2, places),
             {torch::gather(x[0], 1, part(places, 0)), torch::gather(x[1], 1, part(places, 1))}, "gather");
  ExpectEach(nested::masked_scatter(x, flags, dense),
             {x[0].masked_scatter(part(flags, 0), part(dense, 0)), x[1].masked_scatter(part(flags, 1), part(dense, 1))},
             "masked_scatter");
  ExpectEach(nested::scatter(x, 2, places, dense),
             {torch::scatter(x[0], 1, part(places, 0), part(dense, 0)),
              torch::scatter(x[1], 1, part(places, 1), part(dense, 1))},
             "scatter");
  ExpectEach(nested::dist(x, dense, 2), {torch::dist(x[0], part(dense, 0)), torch::dist(x[1], part(dense, 1))}, "dist");
  ExpectEach(nested::cosine_similarity(x, dense, 2).nested(),
             {torch::cosine_similarity(x[0], part(dense, 0), 1), torch::cosine_similarity(x[1], part(dense, 1), 1)},
             "cosine_similarity");
}

TEST(DenseOperands, OfProductsOfMatricesAreWholeWhateverTheirSizes) {
  const NestedTensor x({torch::randn({2, 3}), torch::randn({1, 3})});
  const Tensor dense = torch::randn({1, 3, 3}), cube = torch::randn({3, 2, 3});
  ExpectEach(nested::matmul(x, dense), {torch::matmul(x[0], dense), torch::matmul(x[1], dense)}, "matmul");
  const NestedTensor three({torch::randn({2, 3}), torch::randn({1, 3}), torch::randn({1, 3})});  // padded as `cube` is
  std::vector<Tensor> expected;
  for (const Tensor& element : three.Unbind()) expected.push_back(torch::einsum("ij,jkl->ikl", {element, cube}));
  ExpectEach(nested::einsum("bij,jkl->bikl", {three, cube}), expected, "einsum");
}

TEST(DenseOperands, WiderThanADimOfSizeOneMakeTheElementsGrow) {
  const NestedTensor column({torch::ones({2, 1}), torch::ones({3, 1})});
  const Tensor row = torch::arange(4.);
  ExpectEach(column + row, {row + torch::zeros({2, 4}) + 1, row + torch::zeros({3, 4}) + 1}, "row");
  const Tensor padded = torch::randn({2, 3, 4});
  ExpectEach(padded * column, {padded[0].narrow(0, 0, 2), padded[1]}, "padded");
  const NestedTensor same({torch::ones({1, 4}), torch::zeros({1, 4})});
  ExpectEach(same + torch::ones({5, 4}), {torch::ones({5, 4}) + 1, torch::ones({5, 4})}, "elements of one shape");
  NestedTensor target = column;
  EXPECT_THROW(nested::add_(target, row), c10::ValueError) << "in place nothing can grow";
  EXPECT_THROW(NestedTensor({torch::ones({1}), torch::ones({3})}) + torch::ones({3}), c10::ValueError)
      << "a sequence that happens to have length 1 must not grow";
}

TEST(Numbers, TakeTheDtypeOfTheNestedOperand) {
  const NestedTensor x({torch::tensor({0.F, 1.F}), torch::tensor({1.F})});
  EXPECT_TRUE(torch::equal(nested::isclose(x, 1.).concat(), torch::tensor({false, true, true})));
  EXPECT_TRUE(torch::allclose(nested::lerp(x, 1., .5).concat(), torch::tensor({.5F, 1.F, 1.F})));
  EXPECT_TRUE(torch::allclose(nested::lerp(2., x, .5).concat(), torch::tensor({1.F, 1.5F, 1.5F})));
  EXPECT_TRUE(torch::allclose(nested::lerp(0., 1., x).concat(), x.concat()));
  EXPECT_TRUE(torch::equal(nested::heaviside(x, .5).concat(), torch::tensor({.5F, 1.F, 1.F})));
  const NestedTensor put = nested::index_put(x, {torch::tensor({0})}, 5.);
  EXPECT_TRUE(torch::equal(put.concat(), torch::tensor({5.F, 1.F, 5.F})));
  const NestedTensor half = x.to(torch::kFloat16);
  EXPECT_EQ(nested::heaviside(half, .5).dtype(), torch::kFloat16);
  EXPECT_EQ((half + 1.5).dtype(), torch::kFloat16);
  const NestedTensor whole = x.to(torch::kInt64);
  EXPECT_EQ((whole + 1.5).dtype(), torch::kFloat32);
  EXPECT_EQ(nested::clamp(whole, .5).dtype(), torch::kFloat32);
  EXPECT_TRUE(torch::equal(nested::isclose(whole, 1).concat(), torch::tensor({false, true, true})));
  EXPECT_THROW(nested::heaviside(whole, .5), c10::Error) << "0 instead of 0.5 would be silently wrong";
  EXPECT_NEAR(nested::mse_loss(x, 1.).item<float>(), 1. / 3, 1e-6);
}

TEST(EmptyBatches, KeepRankSizesAndDtype) {
  const NestedTensor x({torch::ones({2, 4}, torch::kInt64), torch::ones({3, 4}, torch::kInt64)});
  const NestedTensor none = x.Index({torch::indexing::Slice(0, 0)}).nested();
  EXPECT_THAT(none.shape(), ElementsAre(0, 0, 4));
  EXPECT_EQ(none.dtype(), torch::kInt64);
  EXPECT_THAT(none.concat().sizes(), ElementsAre(0, 4));
  EXPECT_THAT(none.tensor().sizes(), ElementsAre(0, 0, 4));
  EXPECT_THAT(none.mask().sizes(), ElementsAre(0, 0));
  EXPECT_THAT(nested::sum(none, 1).dense().sizes(), ElementsAre(0, 4));
  EXPECT_EQ(nested::sum(none).dense().item<int64_t>(), 0);
  const NestedTensor joined = nested::cat({none, none});
  EXPECT_EQ(joined.dtype(), torch::kInt64);
  EXPECT_THAT(joined.shape(), ElementsAre(0, 0, 4));
  EXPECT_TRUE(nested::equal(nested::cat({none, x}), x));
  EXPECT_TRUE(nested::equal(NestedTensor::FromState(none.State()), none));
  EXPECT_TRUE(nested::equal(none, none.clone()));
  EXPECT_THAT((none + torch::ones({4})).shape(), ElementsAre(0, 0, 4));
  EXPECT_THAT(nested::exp(none).shape(), ElementsAre(0, 0, 4));
  const NestedTensor floats = none.to(torch::kFloat32);
  EXPECT_THAT(nested::linear(floats, torch::ones({6, 4})).shape(), ElementsAre(0, 0, 6));
  EXPECT_THAT(
      nested::embedding(NestedTensor({torch::zeros({2}, torch::kInt64)}).Index({std::vector<int64_t>{}}).nested(),
                        torch::ones({5, 7}))
          .shape(),
      ElementsAre(0, 0, 7));
  EXPECT_EQ(none.to(torch::kMeta).Index({torch::indexing::Slice(0, 0)}).nested().device(), torch::Device(torch::kMeta));
  const NestedTensor wide({torch::ones({4, 2}), torch::ones({4, 3})});  // dim 1 varies
  EXPECT_THAT(wide.Index({torch::indexing::Slice(0, 0)}).nested().shape(), ElementsAre(0, 4, 0));
}

TEST(Apply, ActsOnTheLastDimOfEachElement) {
  const auto softmax = [](const Tensor& t) { return torch::softmax(t, -1); };
  const std::vector<std::vector<Tensor>> batches = {{torch::randn({2, 3}), torch::randn({3, 2})},  // all dims vary
                                                    {torch::randn({3}), torch::randn({5})},
                                                    {torch::randn({4}), torch::randn({4})},
                                                    {torch::randn({2, 4}), torch::randn({3, 4})},
                                                    {torch::randn({4, 2}), torch::randn({4, 3})}};
  for (const auto& elements : batches) {
    ExpectEach(nested::Apply(NestedTensor(elements), softmax), {softmax(elements[0]), softmax(elements[1])}, "softmax");
  }
  torch::nn::Linear linear(4, 6);
  const NestedTensor vectors({torch::randn({4}), torch::randn({4})});
  ExpectEach(nested::Apply(vectors, [&](const Tensor& t) { return linear(t); }),
             {linear(vectors[0]), linear(vectors[1])}, "linear on vectors of one length");
  int calls = 0;
  nested::Apply(vectors, [&](const Tensor& t) { return ++calls, t; });
  EXPECT_EQ(calls, 1);
}

TEST(ApplyRows, IsOneCallForModulesThatTreatEveryRowByItself) {
  torch::nn::Embedding embedding(10, 4);
  int calls = 0;
  const auto look_up = [&](const Tensor& t) { return ++calls, embedding(t); };
  const NestedTensor tokens({torch::tensor({1, 2, 3}), torch::tensor({9})});
  ExpectEach(nested::ApplyRows(tokens, look_up), {embedding(tokens[0]), embedding(tokens[1])}, "embedding");
  EXPECT_EQ(calls, 1);
  const NestedTensor tables({torch::tensor({{1, 2}}), torch::tensor({{3}, {4}})});
  ExpectEach(nested::ApplyRows(tables, look_up), {embedding(tables[0]), embedding(tables[1])}, "two varying dims");
  const NestedTensor ids({torch::tensor(4), torch::tensor(5)});  // elements without dims
  ExpectEach(nested::ApplyRows(ids, look_up), {embedding(ids[0]), embedding(ids[1])}, "no dims");
  const NestedTensor x({torch::randn({4, 2}), torch::randn({4, 3})});  // the static dim lies before the varying one
  ExpectEach(nested::ApplyRows(x, [](const Tensor& t) { return t.unsqueeze(-1); }),
             {x[0].unsqueeze(-1), x[1].unsqueeze(-1)}, "static before varying");
}

TEST(Losses, AlignWhateverIsDenseByWhateverIsNested) {
  torch::manual_seed(3);
  const Tensor logits = torch::randn({2, 5, 4}), weight = torch::tensor({1.F, 2.F, 3.F, 4.F});
  const NestedTensor labels({torch::tensor({0, 1, 2}), torch::tensor({3, 2, 1, 0, 1})});
  const Tensor rows = torch::cat({logits[0].narrow(0, 0, 3), logits[1]}), flat = labels.concat();
  EXPECT_TRUE(torch::allclose(nested::cross_entropy(logits, labels), torch::cross_entropy_loss(rows, flat)));
  EXPECT_TRUE(torch::allclose(nested::cross_entropy(logits, labels, NestedValue(weight)),
                              torch::cross_entropy_loss(rows, flat, weight)));
  EXPECT_TRUE(torch::allclose(nested::nll_loss(logits.log_softmax(-1), labels, NestedValue(weight)),
                              torch::nll_loss(rows.log_softmax(-1), flat, weight)));
  NestedTensor second = labels;
  second.set_batch_first(false);
  EXPECT_TRUE(
      torch::allclose(nested::cross_entropy(logits.transpose(0, 1), second), torch::cross_entropy_loss(rows, flat)));
  const NestedTensor classes({torch::tensor(1), torch::tensor(3)});  // one label for each sample
  EXPECT_TRUE(torch::allclose(nested::cross_entropy(logits.select(1, 0), classes),
                              torch::cross_entropy_loss(logits.select(1, 0), classes.concat())));
  const NestedTensor x({torch::rand({3}), torch::rand({5})}), y = (x > 0.5).to(torch::kFloat32);
  const Tensor padded = torch::rand({2, 5});
  EXPECT_TRUE(
      torch::allclose(nested::binary_cross_entropy(padded, y),
                      torch::binary_cross_entropy(torch::cat({padded[0].narrow(0, 0, 3), padded[1]}), y.concat())));
  EXPECT_TRUE(torch::allclose(
      nested::binary_cross_entropy(padded, y, NestedValue(x)),
      torch::binary_cross_entropy(torch::cat({padded[0].narrow(0, 0, 3), padded[1]}), y.concat(), x.concat())));
}

TEST(Losses, RefuseWhatHasOtherLengths) {
  const NestedTensor x({torch::rand({3}), torch::rand({5})}), turned({torch::rand({5}), torch::rand({3})});
  EXPECT_THROW(nested::binary_cross_entropy(x, x, NestedValue(turned)), c10::ValueError) << "a weight too";
  EXPECT_THROW(nested::binary_cross_entropy_with_logits(x, x, {}, NestedValue(turned)), c10::ValueError);
  EXPECT_THROW(nested::mse_loss(x, turned), c10::ValueError);
  EXPECT_THROW(nested::mse_loss(x, torch::rand({8})), c10::ValueError) << "as long as all elements by accident";
  const NestedTensor square({torch::rand({3, 8}), torch::rand({5, 8})});
  EXPECT_THROW(nested::mse_loss(square, x), c10::ValueError) << "8 x 8 against 8 would broadcast";
  const NestedTensor grid({torch::rand({2, 3}), torch::rand({3, 2})}), line({torch::rand({6}), torch::rand({6})});
  EXPECT_THROW(nested::nll_loss(grid, line.to(torch::kInt64)), c10::ValueError) << "6 numbers each, but not alike";
}

TEST(Losses, CutADenseTargetThatIsWider) {
  const NestedTensor x({torch::rand({3}), torch::rand({5})});
  const Tensor target = torch::rand({2, 7});
  const Tensor rows = torch::cat({target[0].narrow(0, 0, 3), target[1].narrow(0, 0, 5)});
  EXPECT_TRUE(torch::allclose(nested::mse_loss(x, target), torch::mse_loss(x.concat(), rows)));
  EXPECT_THROW(nested::mse_loss(x, torch::rand({2, 4})), c10::Error) << "the second element has nothing for its last";
  EXPECT_THROW(nested::mse_loss(x, torch::rand({3, 7})), c10::ValueError) << "another batch";
}

TEST(Indices, ATensorOfOneIntegerIsAPosition) {
  NestedTensor x({torch::tensor({1.F, 2.F, 3.F}), torch::tensor({4.F, 5.F})});
  EXPECT_TRUE(torch::equal(x.Index({torch::tensor(1)}).dense(), torch::tensor({4.F, 5.F})));
  EXPECT_TRUE(torch::equal(x.Index({torch::tensor(-1), torch::tensor(0)}).dense(), torch::tensor(4.F)));
  EXPECT_THROW(x.Index({torch::tensor(2)}), c10::IndexError);
  EXPECT_THROW(x.Index({torch::tensor(1.F)}), c10::IndexError);
  x.Assign({torch::tensor(0)}, torch::tensor({9.F}));
  EXPECT_EQ(x.shape(), (std::vector<int64_t>{2, 2}));
}

TEST(Assignments, OfARowToTheOneElementThatIsSelected) {
  NestedTensor x({torch::tensor({1.F, 2.F, 3.F}), torch::tensor({4.F, 5.F})});
  x.Assign({NestedIndex::Flags{true, false}}, torch::tensor({7.F, 8.F, 9.F, 10.F}));
  EXPECT_TRUE(torch::equal(x[0], torch::tensor({7.F, 8.F, 9.F, 10.F})));
  EXPECT_TRUE(torch::equal(x[1], torch::tensor({4.F, 5.F})));
  EXPECT_THROW(x.Assign({NestedIndex::Flags{true, true}}, torch::tensor({7.F})), c10::ValueError);
}

TEST(Reductions, OverNoDimsNamedAreOverAll) {
  const NestedTensor x({torch::tensor({{1.F, 2.F}}), torch::tensor({{3.F, 4.F}, {5.F, 6.F}})});
  EXPECT_EQ(nested::mean(x, std::vector<int64_t>{}).dense().item<float>(), 3.5F);
  EXPECT_EQ(nested::sum(x, std::vector<int64_t>{}, /*keepdim=*/true).dense().dim(), 3);
}

TEST(Elements, StayPartOfTheirGraph) {
  const Tensor weight = torch::ones({2, 3}, torch::requires_grad());
  NestedOptions options;
  options.requires_grad = true;
  const NestedTensor x(std::vector<Tensor>{weight * 2, torch::ones({1, 3})}, options);
  nested::sum(x * x).dense().backward();
  ASSERT_TRUE(weight.grad().defined());
  EXPECT_TRUE(torch::equal(weight.grad(), torch::full({2, 3}, 8.F)));
  EXPECT_TRUE(torch::equal(x.grad(), 2 * x.concat())) << "and the packed values have gradients too";
  const NestedTensor back = NestedTensor::FromState(x.State());
  EXPECT_TRUE(back.requires_grad());
  EXPECT_TRUE(back.concat().is_leaf());
  EXPECT_FALSE(NestedTensor::FromState(x.detach().State()).requires_grad());
  auto state = x.State();  // as the first version wrote it
  state["options"] = torch::tensor({1., 1., 0., 0.}, torch::kFloat64);
  EXPECT_TRUE(nested::equal(NestedTensor::FromState(state), x));
}

TEST(Views, AreNotSpoiledByWritingIntoThem) {
  const NestedTensor x = Ragged();
  x.tensor().zero_();
  EXPECT_TRUE(torch::equal(x.tensor()[0], x[0])) << "the padded view that is kept";
  x.mask().zero_();
  EXPECT_EQ(x.mask().sum().item<int64_t>(), 3);
  const NestedTensor full({torch::ones({2, 3}), torch::ones({2, 3})});
  full.tensor().zero_();  // nothing is padded: shares memory, as nested/tensor.h says
  EXPECT_EQ(nested::sum(full).dense().item<float>(), 0);
}

TEST(Conversions, ToListsOfNumbers) {
  using nlohmann::json;
  EXPECT_EQ(ToJson(Ragged()), json::parse("[[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], [[6.0, 7.0, 8.0]]]"));
  EXPECT_EQ(ToJson(NestedTensor({torch::tensor({1, 2}), torch::empty({0}, torch::kInt64)})),
            json::parse("[[1, 2], []]"));
  EXPECT_EQ(ToJson(NestedTensor({torch::tensor(true), torch::tensor(false)})), json::parse("[true, false]"));
  EXPECT_EQ(ToJson(NestedTensor({torch::tensor({c10::complex<float>(1, -2)})})), json::parse("[[[1.0, -2.0]]]"));
  EXPECT_EQ(ToJson(NestedTensor({torch::tensor({0.5F})}).to(torch::kFloat16)), json::parse("[[0.5]]"));
  EXPECT_EQ(ToJson(NestedTensor()), json::array());
}

TEST(Conversions, PNTensorsAreMadeOfListsInBraces) {
  EXPECT_TRUE(torch::equal(MakePNTensor({1, 2, 3}), torch::tensor({1, 2, 3})));
  EXPECT_TRUE(torch::equal(MakePNTensor({{1.5, 2.0}, {3.0, 4.0}}), torch::tensor({{1.5, 2.0}, {3.0, 4.0}})));
  EXPECT_TRUE(torch::equal(MakePNTensor(7), torch::tensor(7)));
  EXPECT_TRUE(MakePNTensor({1.F}, torch::requires_grad()).requires_grad());
  EXPECT_EQ(CollateNested({MakePNTensor({1, 2, 3}), MakePNTensor({4, 5})}).numel(), 5);
}

}  // namespace
}  // namespace athanor
