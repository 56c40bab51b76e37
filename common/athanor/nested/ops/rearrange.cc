// Rearranging, gathering and scattering within the elements.
#include "athanor/nested/index.h"
#include "athanor/nested/ops/shape.h"
#include "athanor/nested/pack.h"

namespace athanor::nested {
namespace {

using torch::Tensor;
using Tensors = std::vector<Tensor>;

bool AllPacked(const NestedTensor& x, const std::vector<int64_t>& dims) {
  for (const int64_t dim : dims) {
    if (!PackedDim(*x.structure(), dim)) return false;
  }
  return true;
}

std::vector<int64_t> PackedDims(const NestedTensor& x, const std::vector<int64_t>& dims) {
  std::vector<int64_t> packed;
  for (const int64_t dim : dims) packed.push_back(*PackedDim(*x.structure(), dim));
  return packed;
}

}  // namespace

NestedTensor flip(const NestedTensor& x, const std::vector<int64_t>& dims) {
  const std::vector<int64_t> inner = ElementDims(x, dims);
  if (AllPacked(x, inner)) return x.WithValues(x.values().flip(PackedDims(x, inner)));
  return PerElement(x, [&](const Tensor& t) { return t.flip(inner); });
}

NestedTensor roll(const NestedTensor& x, const std::vector<int64_t>& shifts, const std::vector<int64_t>& dims) {
  const std::vector<int64_t> inner = ElementDims(x, dims);
  if (!inner.empty() && AllPacked(x, inner)) return x.WithValues(x.values().roll(shifts, PackedDims(x, inner)));
  return PerElement(x, [&](const Tensor& t) { return t.roll(shifts, inner); });
}

NestedTensor rot90(const NestedTensor& x, int64_t k, const std::vector<int64_t>& dims) {
  const std::vector<int64_t> inner = ElementDims(x, dims);
  return PerElement(x, [&](const Tensor& t) { return torch::rot90(t, k, inner); });
}

#define ATHANOR_NESTED_DEFINE(name)                                           \
  NestedTensor name(const NestedTensor& x, int64_t k) {                       \
    return PerElement(x, [&](const Tensor& t) { return torch::name(t, k); }); \
  }
ATHANOR_NESTED_DEFINE(tril)
ATHANOR_NESTED_DEFINE(triu)
ATHANOR_NESTED_DEFINE(diag)
ATHANOR_NESTED_DEFINE(diagflat)
ATHANOR_NESTED_DEFINE(diag_embed)
#undef ATHANOR_NESTED_DEFINE

NestedTensor diagonal(const NestedTensor& x, int64_t offset, int64_t dim1, int64_t dim2) {
  const int64_t first = ElementDim(x, dim1);
  const int64_t second = ElementDim(x, dim2);
  return PerElement(x, [&](const Tensor& t) { return t.diagonal(offset, first, second); });
}

NestedTensor trace(const NestedTensor& x) {
  return PerElement(x, [](const Tensor& t) { return torch::trace(t); });
}

NestedTensor repeat_interleave(const NestedTensor& x, int64_t repeats, std::optional<int64_t> dim) {
  if (dim) dim = ElementDim(x, *dim);
  return PerElement(x, [&](const Tensor& t) { return torch::repeat_interleave(t, repeats, dim); });
}

NestedTensor nonzero(const NestedTensor& x) {
  return PerElement(x, [](const Tensor& t) { return torch::nonzero(t); });
}

NestedTensor gather(const NestedTensor& x, int64_t dim, const NestedValue& index) {
  const int64_t inner = ElementDim(x, dim);
  return PerElement({x, index}, [&](const Tensors& t) { return torch::gather(t[0], inner, t[1]); });
}

NestedTensor take_along_dim(const NestedTensor& x, const NestedValue& index, int64_t dim) {
  const int64_t inner = ElementDim(x, dim);
  return PerElement({x, index}, [&](const Tensors& t) { return torch::take_along_dim(t[0], t[1], inner); });
}

NestedTensor take(const NestedTensor& x, const NestedValue& index) {
  return PerElement({x, index}, [](const Tensors& t) { return torch::take(t[0], t[1]); });
}

NestedTensor scatter(const NestedTensor& x, int64_t dim, const NestedValue& index, const NestedValue& source) {
  const int64_t inner = ElementDim(x, dim);
  return PerElement({x, index, source}, [&](const Tensors& t) {
    if (t[2].dim() > 0 || t[1].dim() == 0) return torch::scatter(t[0], inner, t[1], t[2]);
    return torch::scatter(t[0], inner, t[1], t[2].to(t[0].options().requires_grad(false)).expand_as(t[1]));
  });
}

NestedTensor scatter_add(const NestedTensor& x, int64_t dim, const NestedValue& index, const NestedValue& source) {
  const int64_t inner = ElementDim(x, dim);
  return PerElement({x, index, source}, [&](const Tensors& t) { return torch::scatter_add(t[0], inner, t[1], t[2]); });
}

NestedTensor scatter_reduce(const NestedTensor& x, int64_t dim, const NestedValue& index, const NestedValue& source,
                            const std::string& reduce, bool include_self) {
  const int64_t inner = ElementDim(x, dim);
  return PerElement({x, index, source}, [&](const Tensors& t) {
    return torch::scatter_reduce(t[0], inner, t[1], t[2], reduce, include_self);
  });
}

NestedTensor index_select(const NestedTensor& x, int64_t dim, const NestedValue& index) {
  if (IsBatchDim(x, dim)) {
    const Tensor positions = index.dense().to(torch::kCPU, torch::kInt64).reshape({-1}).contiguous();
    const int64_t* data = positions.data_ptr<int64_t>();
    return Select(x, std::vector<int64_t>(data, data + positions.numel()));
  }
  const int64_t inner = ElementDim(x, dim);
  return PerElement({x, index}, [&](const Tensors& t) { return torch::index_select(t[0], inner, t[1]); });
}

NestedTensor index_add(const NestedTensor& x, int64_t dim, const NestedValue& index, const NestedValue& source,
                       const torch::Scalar& alpha) {
  const int64_t inner = ElementDim(x, dim);
  return PerElement({x, index, source},
                    [&](const Tensors& t) { return torch::index_add(t[0], inner, t[1], t[2], alpha); });
}

NestedTensor index_copy(const NestedTensor& x, int64_t dim, const NestedValue& index, const NestedValue& source) {
  const int64_t inner = ElementDim(x, dim);
  return PerElement({x, index, source}, [&](const Tensors& t) { return torch::index_copy(t[0], inner, t[1], t[2]); });
}

NestedTensor index_fill(const NestedTensor& x, int64_t dim, const NestedValue& index, const torch::Scalar& value) {
  const int64_t inner = ElementDim(x, dim);
  return PerElement({x, index}, [&](const Tensors& t) { return torch::index_fill(t[0], inner, t[1], value); });
}

NestedTensor index_put(const NestedTensor& x, const std::vector<NestedValue>& indices, const NestedValue& values,
                       bool accumulate) {
  std::vector<NestedValue> operands = {x, values};
  operands.insert(operands.end(), indices.begin(), indices.end());
  return PerElement(operands, [&](const Tensors& t) {
    c10::List<std::optional<Tensor>> at;
    for (size_t i = 2; i < t.size(); ++i) at.push_back(t[i]);
    return torch::index_put(t[0], at, t[1], accumulate);
  });
}

NestedTensor masked_select(const NestedTensor& x, const NestedValue& mask) {
  const NestedValue like = mask.is_nested() || mask.dense().dim() != x.dim() ? mask : x.NestedLike(mask.dense());
  return PerElement({x, like}, [](const Tensors& t) { return torch::masked_select(t[0], t[1]); });
}

NestedTensor masked_scatter(const NestedTensor& x, const NestedValue& mask, const NestedValue& source) {
  return PerElement({x, mask, source}, [](const Tensors& t) { return torch::masked_scatter(t[0], t[1], t[2]); });
}

NestedTensor searchsorted(const NestedValue& sorted, const NestedValue& values, bool right) {
  return PerElement({sorted, values},
                    [&](const Tensors& t) { return torch::searchsorted(t[0], t[1], /*out_int32=*/false, right); });
}

}  // namespace athanor::nested
