// Shape operations, gathering and scattering, matrix products and linear algebra.
#include "athanor/nested/ops/arithmetic.h"
#include "athanor/nested/ops/linalg.h"
#include "athanor/nested/ops/shape.h"
#include "tests/unit/common/nested/nested_gradient_cases.h"

namespace athanor::gradient {
namespace {

NestedTensor Indices(const std::vector<std::vector<std::vector<int64_t>>>& elements) {
  Tensors tensors;
  for (const auto& rows : elements) {
    Tensors parts;
    for (const auto& row : rows) parts.push_back(torch::tensor(row, torch::kInt64));
    tensors.push_back(torch::stack(parts));
  }
  return NestedTensor(tensors);
}

}  // namespace

// One case of functions of one tensor, over rows x 3 if nothing else is said.
#define ATHANOR_ONE(name, shapes, call) {name, {{Nested(shapes)}, {}}, [=](const Inputs& i) { return Of(call); }}
#define ATHANOR_TWO(name, shapes, others, call) \
  {name, {{Nested(shapes), Nested(others)}, {}}, [=](const Inputs& i) { return Of(call); }}

namespace {

std::vector<Case> IndexCases() {
  const NestedTensor places = Indices({{{0, 1, 0}}, {{0, 0, 0}}});  // within the elements of kRows, along dim 1
  const NestedTensor rows({torch::tensor({1, 0}), torch::tensor({0})}),
      flat({torch::tensor({4, 0}), torch::tensor({2})});
  const NestedTensor mask = Nested(kRows) > 0;
  return {
      ATHANOR_ONE("gather", kRows, nested::gather(i.x[0], 1, places)),
      ATHANOR_ONE("take_along_dim", kRows, nested::take_along_dim(i.x[0], places, 1)),
      ATHANOR_ONE("take", kRows, nested::take(i.x[0], flat)),
      ATHANOR_TWO("scatter", kRows, (Shapes{{1, 3}, {1, 3}}), nested::scatter(i.x[0], 1, places, i.x[1])),
      {"scatter of a number",
       {{Nested(kRows)}, {Dense({})}},
       [=](const Inputs& i) { return Of(nested::scatter(i.x[0], 1, places, i.w[0])); }},
      ATHANOR_TWO("scatter_add", kRows, (Shapes{{1, 3}, {1, 3}}), nested::scatter_add(i.x[0], 1, places, i.x[1])),
      ATHANOR_TWO("scatter_reduce", kRows, (Shapes{{1, 3}, {1, 3}}),
                  nested::scatter_reduce(i.x[0], 1, places, i.x[1], "mean")),
      ATHANOR_ONE("index_select", kRows, nested::index_select(i.x[0], 1, rows)),
      ATHANOR_ONE("index_select of the batch", kRows, nested::index_select(i.x[0], 0, torch::tensor({1, 0, 1}))),
      ATHANOR_TWO("index_add", kRows, kRows, nested::index_add(i.x[0], 1, rows, i.x[1], 2)),
      ATHANOR_TWO("index_copy", kRows, kRows, nested::index_copy(i.x[0], 1, rows, i.x[1])),
      ATHANOR_ONE("index_fill", kRows, nested::index_fill(i.x[0], 2, torch::tensor({1}), 3)),
      ATHANOR_TWO("index_put", kRows, kRows, nested::index_put(i.x[0], {rows}, i.x[1], true)),
      ATHANOR_ONE("masked_select", kRows, nested::masked_select(i.x[0], mask)),
      {"masked_scatter",
       {{Nested(kRows), Nested({{9}, {9}})}, {}},
       [=](const Inputs& i) { return Of(nested::masked_scatter(i.x[0], mask, i.x[1])); }},
  };
}

}  // namespace

std::vector<Case> ShapeCases() {
  const Shapes deep = {{2, 4, 3}, {1, 4, 3}}, ones = {{2, 1, 3}, {1, 1, 3}};
  std::vector<Case> cases = {
      ATHANOR_ONE("transpose", kRows, nested::transpose(i.x[0], 1, 2)),
      ATHANOR_ONE("transpose of two varying dims", kBoth, nested::transpose(i.x[0], 1, 2)),
      ATHANOR_ONE("swapaxes", deep, nested::swapaxes(i.x[0], 2, 3)),
      ATHANOR_ONE("swapdims", deep, nested::swapdims(i.x[0], 1, 3)),
      ATHANOR_ONE("permute", deep, nested::permute(i.x[0], {0, 3, 1, 2})),
      ATHANOR_ONE("movedim", deep, nested::movedim(i.x[0], 1, 2)),
      ATHANOR_ONE("moveaxis", deep, nested::moveaxis(i.x[0], 3, 1)),
      ATHANOR_ONE("T", deep, nested::T(i.x[0])),
      ATHANOR_ONE("mT", deep, nested::mT(i.x[0])),
      ATHANOR_ONE("unsqueeze", kRows, nested::unsqueeze(i.x[0], 2)),
      ATHANOR_ONE("unsqueeze in front", kRows, nested::unsqueeze(i.x[0], 1)),
      ATHANOR_ONE("unsqueeze of equal elements", kSame, nested::unsqueeze(i.x[0], 1)),
      ATHANOR_ONE("squeeze", ones, nested::squeeze(i.x[0])),
      ATHANOR_ONE("squeeze of one dim", ones, nested::squeeze(i.x[0], 2)),
      ATHANOR_ONE("unflatten", deep, nested::unflatten(i.x[0], 2, {2, -1})),
      ATHANOR_ONE("unflatten of equal elements", kSame, nested::unflatten(i.x[0], 1, {2, 1})),
      ATHANOR_ONE("flatten", deep, nested::flatten(i.x[0], 2, 3)),
      ATHANOR_ONE("flatten of rows", deep, nested::flatten(i.x[0], 1, 2)),
      ATHANOR_ONE("flatten of two varying dims", kBoth, nested::flatten(i.x[0], 1, 2)),
      ATHANOR_ONE("flatten with the batch", kRows, nested::flatten(i.x[0], 0, 1)),
      ATHANOR_ONE("reshape", deep, nested::reshape(i.x[0], {-1, 6})),
      ATHANOR_ONE("view", kRows, nested::view(i.x[0], {3, -1})),
      ATHANOR_ONE("expand", ones, nested::expand(i.x[0], {-1, -1, 2, -1})),
      ATHANOR_TWO("cat", kRows, kRows, nested::cat({i.x[0], i.x[1]})),
      ATHANOR_TWO("cat of other packings", kRows, kLast, nested::cat({i.x[0], i.x[1]})),
      ATHANOR_TWO("cat of elements", kRows, kRows, nested::cat({i.x[0], i.x[1]}, 1)),
      {"cat with a dense element",
       {{Nested(kRows)}, {Dense({4, 3})}},
       [](const Inputs& i) { return Of(nested::cat({i.x[0], i.w[0]})); }},
      ATHANOR_TWO("stack", kRows, kRows, nested::stack({i.x[0], i.x[1]})),
      ATHANOR_ONE("split", kRows, nested::split(i.x[0], 1)),
      ATHANOR_ONE("split of other packings", kLast, nested::split(i.x[0], std::vector<int64_t>{1, 1})),
      ATHANOR_ONE("split of elements", kRows, nested::split(i.x[0], 2, 2)),
      ATHANOR_ONE("chunk", kRows, nested::chunk(i.x[0], 2)),
      ATHANOR_ONE("chunk of elements", kRows, nested::chunk(i.x[0], 2, 2)),
      ATHANOR_ONE("unbind", kRows, nested::unbind(i.x[0])),
      ATHANOR_ONE("flip", kRows, nested::flip(i.x[0], {1})),
      ATHANOR_ONE("flip of a static dim", kRows, nested::flip(i.x[0], {2})),
      ATHANOR_ONE("roll", kRows, nested::roll(i.x[0], {1}, {1})),
      ATHANOR_ONE("roll of a static dim", kRows, nested::roll(i.x[0], {1}, {2})),
      ATHANOR_ONE("rot90", kRows, nested::rot90(i.x[0])),
      ATHANOR_ONE("tril", kRows, nested::tril(i.x[0])),
      ATHANOR_ONE("triu", kRows, nested::triu(i.x[0])),
      ATHANOR_ONE("diag", kFlat, nested::diag(i.x[0])),
      ATHANOR_ONE("diagflat", kFlat, nested::diagflat(i.x[0], 1)),
      ATHANOR_ONE("diag_embed", kFlat, nested::diag_embed(i.x[0])),
      ATHANOR_ONE("diagonal", kRows, nested::diagonal(i.x[0])),
      ATHANOR_ONE("trace", kRows, nested::trace(i.x[0])),
      ATHANOR_ONE("repeat_interleave", kRows, nested::repeat_interleave(i.x[0], 2, 1)),
  };
  for (const Case& one : IndexCases()) cases.push_back(one);
  return cases;
}

std::vector<Case> MatrixCases() {
  const Shapes square = {{2, 2}, {3, 3}}, left = {{2, 3}, {1, 3}}, right = {{3, 2}, {3, 4}}, row = {{3}, {3}};
  const Shapes tall = {{3, 2}, {4, 2}};
  const auto with = [](const char* name, const Shapes& shapes, const std::vector<int64_t>& sizes, const auto& fn) {
    return Case{name, {{Nested(shapes)}, {Dense(sizes)}}, [fn](const Inputs& i) { return Of(fn(i.x[0], i.w[0])); }};
  };
  const auto three = [](const char* name, const Shapes& x, const Shapes& a, const Shapes& b, const auto& fn) {
    return Case{name, {{Nested(x), Nested(a), Nested(b)}, {}}, [fn](const Inputs& i) {
                  return Of(fn(i.x[0], i.x[1], i.x[2], 2, 3));
                }};
  };
  const auto positive = [](const NestedTensor& x) {  // well conditioned, symmetric
    const NestedTensor product = nested::matmul(x, nested::mT(x));
    Tensors shifted;
    for (const Tensor& t : product.Unbind())
      shifted.push_back(t + 2 * torch::eye(t.size(0), t.options().requires_grad(false)));
    return NestedTensor(shifted);
  };
  std::vector<Case> cases = {
      ATHANOR_TWO("matmul", left, right, nested::matmul(i.x[0], i.x[1])),
      with("matmul with a dense matrix", left, {3, 2},
           [](const auto& x, const auto& w) { return nested::matmul(x, w); }),
      with("matmul with a dense left side", right, {2, 3},
           [](const auto& x, const auto& w) { return nested::matmul(w, x); }),
      ATHANOR_TWO("mm", left, right, nested::mm(i.x[0], i.x[1])),
      ATHANOR_TWO("bmm", left, right, nested::bmm(i.x[0], i.x[1])),
      with("bmm with a dense batch", left, {2, 3, 2}, [](const auto& x, const auto& w) { return nested::bmm(x, w); }),
      with("grouped_mm", left, {2, 3, 2}, [](const auto& x, const auto& w) { return nested::grouped_mm(x, w); }),
      ATHANOR_TWO("mv", left, row, nested::mv(i.x[0], i.x[1])),
      ATHANOR_TWO("dot", kFlat, kFlat, nested::dot(i.x[0], i.x[1])),
      ATHANOR_TWO("vdot", kFlat, kFlat, nested::vdot(i.x[0], i.x[1])),
      ATHANOR_TWO("inner", left, left, nested::inner(i.x[0], i.x[1])),
      ATHANOR_TWO("outer", kFlat, kFlat, nested::outer(i.x[0], i.x[1])),
      ATHANOR_TWO("ger", kFlat, kFlat, nested::ger(i.x[0], i.x[1])),
      three("addmm", {{2, 2}, {1, 4}}, left, right, [](const auto&... a) { return nested::addmm(a...); }),
      three("baddbmm", {{2, 2}, {1, 4}}, left, right, [](const auto&... a) { return nested::baddbmm(a...); }),
      three("addr", {{3, 3}, {2, 2}}, kFlat, kFlat, [](const auto&... a) { return nested::addr(a...); }),
      three("addmv", {{2}, {1}}, left, row, [](const auto&... a) { return nested::addmv(a...); }),
      ATHANOR_TWO("dist", kRows, kRows, nested::dist(i.x[0], i.x[1], 3)),
      ATHANOR_TWO("cdist", kRows, kRows, nested::cdist(i.x[0], i.x[1])),
      ATHANOR_ONE("pdist", kRows, nested::pdist(i.x[0])),
      ATHANOR_TWO("einsum", left, right, nested::einsum("bij,bjk->bik", {i.x[0], i.x[1]})),
      ATHANOR_ONE("matrix_exp", square, nested::matrix_exp(i.x[0])),
      ATHANOR_ONE("matrix_power", square, nested::matrix_power(i.x[0], 3)),
      ATHANOR_ONE("inverse", square, nested::inverse(positive(i.x[0]))),
      ATHANOR_ONE("det", square, nested::det(i.x[0])),
      ATHANOR_ONE("cholesky", square, nested::cholesky(positive(i.x[0]))),
      ATHANOR_TWO("solve", square, square, nested::solve(positive(i.x[0]), i.x[1])),
      ATHANOR_ONE("vector_norm", kRows, nested::vector_norm(i.x[0], 3)),
      ATHANOR_ONE("matrix_norm", kRows, nested::matrix_norm(i.x[0])),
      ATHANOR_ONE("eigh", square, nested::eigh(positive(i.x[0])).first),
      ATHANOR_ONE("qr", tall, nested::qr(i.x[0])),
      ATHANOR_ONE("svd", tall, nested::svd(i.x[0])),
  };
  for (Case& one : cases) {
    // torch's backward of the distances of pairs has no derivative.
    if (one.name == "pdist" || one.name == "cdist") one.twice = false;
  }
  return cases;
}

}  // namespace athanor::gradient
