// Softmax, cumulative functions and sorting: results of the operand's shape.
#include "athanor/nested/ops/reduce.h"
#include "athanor/nested/ops/segment.h"

namespace athanor::nested {
namespace {

using torch::Tensor;
using Tensors = std::vector<Tensor>;

// `fn(tensor, dim)` keeps the shape.
template <class Fn>
NestedTensor Scan(const NestedTensor& x, int64_t dim, const Fn& fn) {
  const int64_t inner = ElementDim(x, dim);
  if (const auto packed = PackedDim(*x.structure(), inner)) return x.WithValues(fn(x.values(), *packed));
  return PerElement(x, [&](const Tensor& t) { return fn(t, inner); });
}

// Two outputs of one shape, which need not be the operand's.
template <class Fn>
std::pair<NestedTensor, NestedTensor> ScanPair(const NestedTensor& x, int64_t dim, const Fn& fn) {
  const int64_t inner = ElementDim(x, dim);
  if (const auto packed = PackedDim(*x.structure(), inner)) {
    const auto [values, indices] = fn(x.values(), *packed);
    if (values.sizes() == x.values().sizes()) return {x.WithValues(values), x.WithValues(indices)};
  }
  const auto columns = EachElement({x}, [&](const Tensors& t) {
    const auto [values, indices] = fn(t[0], inner);
    return Tensors{values, indices};
  });
  if (columns.empty()) return {x, x.to(torch::kInt64)};
  return {Repack(columns[0], x), Repack(columns[1], x)};
}

bool OverRows(const NestedTensor& x, int64_t dim) {
  const auto& varying = x.structure()->varying_dims();
  return varying.size() == 1 && varying[0] == ElementDim(x, dim) && torch::isFloatingType(x.dtype());
}

}  // namespace

NestedTensor softmax(const NestedTensor& x, int64_t dim, std::optional<torch::Dtype> dtype) {
  const NestedTensor cast = dtype ? x.to(*dtype) : x;
  if (OverRows(cast, dim)) return SegmentSoftmax(cast, false);
  return Scan(cast, dim, [](const Tensor& t, int64_t d) { return torch::softmax(t, d); });
}

NestedTensor log_softmax(const NestedTensor& x, int64_t dim, std::optional<torch::Dtype> dtype) {
  const NestedTensor cast = dtype ? x.to(*dtype) : x;
  if (OverRows(cast, dim)) return SegmentSoftmax(cast, true);
  return Scan(cast, dim, [](const Tensor& t, int64_t d) { return torch::log_softmax(t, d); });
}

NestedTensor softmin(const NestedTensor& x, int64_t dim) {
  return softmax(x.WithValues(-x.values()), dim);
}

NestedTensor cumsum(const NestedTensor& x, int64_t dim, std::optional<torch::Dtype> dtype) {
  return Scan(x, dim, [&](const Tensor& t, int64_t d) { return torch::cumsum(t, d, dtype); });
}

NestedTensor cumprod(const NestedTensor& x, int64_t dim, std::optional<torch::Dtype> dtype) {
  return Scan(x, dim, [&](const Tensor& t, int64_t d) { return torch::cumprod(t, d, dtype); });
}

NestedTensor logcumsumexp(const NestedTensor& x, int64_t dim) {
  return Scan(x, dim, [](const Tensor& t, int64_t d) { return torch::logcumsumexp(t, d); });
}

std::pair<NestedTensor, NestedTensor> cummax(const NestedTensor& x, int64_t dim) {
  return ScanPair(x, dim, [](const Tensor& t, int64_t d) { return torch::cummax(t, d); });
}

std::pair<NestedTensor, NestedTensor> cummin(const NestedTensor& x, int64_t dim) {
  return ScanPair(x, dim, [](const Tensor& t, int64_t d) { return torch::cummin(t, d); });
}

std::pair<NestedTensor, NestedTensor> sort(const NestedTensor& x, int64_t dim, bool descending, bool stable) {
  return ScanPair(x, dim, [&](const Tensor& t, int64_t d) { return torch::sort(t, stable, d, descending); });
}

NestedTensor argsort(const NestedTensor& x, int64_t dim, bool descending, bool stable) {
  return sort(x, dim, descending, stable).second;
}

std::pair<NestedTensor, NestedTensor> topk(const NestedTensor& x, int64_t k, int64_t dim, bool largest, bool sorted) {
  return ScanPair(x, dim, [&](const Tensor& t, int64_t d) { return torch::topk(t, k, d, largest, sorted); });
}

}  // namespace athanor::nested
