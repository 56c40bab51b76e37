#include "athanor/nested/ops/reduce.h"

#include <algorithm>

#include "athanor/nested/ops/segment.h"

namespace athanor::nested {
namespace {

using torch::IntArrayRef;
using torch::Tensor;
using Tensors = std::vector<Tensor>;

// `fn(tensor, dims, keepdim)` -> one or more outputs.
using ReduceFn = std::function<Tensors(const Tensor&, IntArrayRef, bool)>;

// The packed result of reducing static dims of x.
NestedValue WithoutDims(const NestedTensor& x, const Tensor& values, const std::vector<int64_t>& dims, bool keepdim) {
  const NestedStructure& old = *x.structure();
  std::vector<int64_t> sizes;
  int64_t rank = 0;
  for (int64_t b = 0; b < old.batch_size(); ++b) {
    for (int64_t d = 0; d < old.rank(); ++d) {
      const bool reduced = std::find(dims.begin(), dims.end(), d) != dims.end();
      if (!reduced || keepdim) sizes.push_back(reduced ? 1 : old.sizes(b)[static_cast<size_t>(d)]);
    }
    rank = static_cast<int64_t>(sizes.size()) / (b + 1);
  }
  auto structure = NestedStructure::Make(old.batch_size(), rank, sizes, &old);
  return DenseIfSame(NestedTensor::FromPacked(values, std::move(structure), x.view()));
}

std::vector<NestedValue> OverDims(const NestedTensor& x, const std::vector<int64_t>& dims, bool keepdim,
                                  const ReduceFn& fn) {
  std::vector<int64_t> packed;
  for (const int64_t dim : dims) {
    if (const auto at = PackedDim(*x.structure(), dim)) packed.push_back(*at);
  }
  std::vector<NestedValue> outputs;
  if (packed.size() == dims.size() && !x.structure()->AllSame()) {
    for (const Tensor& values : fn(x.values(), packed, keepdim))
      outputs.push_back(WithoutDims(x, values, dims, keepdim));
    return outputs;
  }
  for (const Tensors& column : EachElement({x}, [&](const Tensors& t) { return fn(t[0], dims, keepdim); })) {
    outputs.push_back(StackOrRepack(column, x));
  }
  return outputs;
}

std::vector<int64_t> AllDims(const NestedTensor& x) {
  std::vector<int64_t> dims;
  for (int64_t d = 0; d < x.structure()->rank(); ++d) dims.push_back(d);
  return dims;
}

// Over everything, as a scalar or, kept, as a tensor of ones.
Tensor Whole(const NestedTensor& x, const Tensor& scalar, bool keepdim) {
  return keepdim ? scalar.reshape(std::vector<int64_t>(static_cast<size_t>(x.dim()), 1)) : scalar;
}

// The functions for which the batch dim means "every element to one number".
template <class ElementFn>
NestedValue PerSample(const NestedTensor& x, bool keepdim, const ElementFn& fn) {
  Tensors results;
  for (const Tensor& element : x.Unbind()) results.push_back(fn(element));
  const Tensor stacked = results.empty() ? x.values().reshape({0}) : torch::stack(results);
  return keepdim ? stacked.unsqueeze(x.batch_dim()) : stacked;
}

bool IsPerSample(const NestedTensor& x, const Dims& dims) {
  return dims.given() && !dims.list() && IsBatchDim(x, dims.dims()[0]);
}

NestedValue One(std::vector<NestedValue> outputs) {
  TORCH_CHECK_VALUE(!outputs.empty(), "cannot reduce a dim of an empty batch");
  return outputs[0];
}

std::pair<NestedValue, NestedValue> Two(std::vector<NestedValue> outputs) {
  TORCH_CHECK_VALUE(outputs.size() == 2, "cannot reduce a dim of an empty batch");
  return {outputs[0], outputs[1]};
}

Tensors List(std::tuple<Tensor, Tensor> pair) {
  return {std::get<0>(pair), std::get<1>(pair)};
}

// One output, dims optional: without dims over the packed values.
template <class WholeFn, class DimsFn>
NestedValue Statistic(const NestedTensor& x, const Dims& dims, bool keepdim, const WholeFn& whole, const DimsFn& fn) {
  if (!dims.given()) return Whole(x, whole(x.values()), keepdim);
  return One(OverDims(x, ElementDims(x, dims.dims()), keepdim,
                      [&](const Tensor& t, IntArrayRef d, bool keep) { return Tensors{fn(t, d, keep)}; }));
}

// Values and indices along one dim.
template <class PairFn>
ValuesAndIndices Along(const NestedTensor& x, int64_t dim, bool keepdim, const PairFn& fn) {
  return Two(OverDims(x, {ElementDim(x, dim)}, keepdim,
                      [&](const Tensor& t, IntArrayRef d, bool keep) { return List(fn(t, d[0], keep)); }));
}

// Packing keeps the order of an element's entries.
bool IsRowMajor(const NestedTensor& x) {
  const auto& order = x.structure()->permutation();
  return std::is_sorted(order.begin(), order.end());
}

// Floating numbers of a batch that has elements, over all of their varying dims.
bool CanSegmentFloats(const NestedTensor& x, const std::vector<int64_t>& dims) {
  return x.len() > 0 && torch::isFloatingType(x.dtype()) && CanSegment(x, dims);
}

// The element dims that `function` reduces, none for all entries at once, once it is sure that there is an entry.
std::vector<int64_t> Extremal(const NestedTensor& x, const Dims& dims, const char* function) {
  if (!dims.given()) {
    TORCH_CHECK_INDEX(x.numel() > 0, function, ": the NestedTensor has no entries");
    return {};
  }
  const std::vector<int64_t> inner = ElementDims(x, dims.dims());
  CheckHasEntries(x, inner, function);
  return inner;
}

// Both extremes: over the whole element the index counts its entries.
template <class PairFn>
ValuesAndIndices Extreme(const NestedTensor& x, int64_t dim, bool keepdim, bool largest, const PairFn& fn) {
  const bool whole = IsBatchDim(x, dim);
  const std::vector<int64_t> dims = whole ? AllDims(x) : std::vector<int64_t>{ElementDim(x, dim)};
  CheckHasEntries(x, dims, largest ? "max" : "min");
  // On a CPU torch's function on each element costs less than finding values and positions in several passes.
  if (!x.device().is_cpu() && CanSegmentFloats(x, dims) && (!whole || IsRowMajor(x))) {
    const auto [values, indices] = SegmentExtreme(x, dims, largest);
    if (!keepdim) return {values, indices};
    if (whole) return {values.unsqueeze(x.batch_dim()), indices.unsqueeze(x.batch_dim())};
    return {KeepDims(x, values, dims), KeepDims(x, indices, dims)};
  }
  if (!whole) return Along(x, dim, keepdim, fn);
  std::vector<NestedValue> outputs;
  for (const Tensors& column : EachElement({x}, [&](const Tensors& t) { return List(fn(t[0].flatten(), 0, false)); })) {
    const Tensor stacked = torch::stack(column);
    outputs.emplace_back(keepdim ? stacked.unsqueeze(x.batch_dim()) : stacked);
  }
  return Two(std::move(outputs));
}

}  // namespace

NestedValue sum(const NestedTensor& x, const Dims& dims, bool keepdim, std::optional<torch::Dtype> dtype) {
  if (!dims.given()) return Whole(x, torch::sum(x.values(), dtype), keepdim);
  if (IsPerSample(x, dims)) {
    Tensor sums = SegmentSum(dtype ? x.to(*dtype) : x, AllDims(x));
    if (dtype) sums = sums.to(*dtype);
    return keepdim ? sums.unsqueeze(x.batch_dim()) : sums;
  }
  for (const int64_t dim : dims.dims()) {
    if (!IsBatchDim(x, dim)) continue;
    NestedView zero_filled = x.view();
    zero_filled.padding_value = 0;
    return torch::sum(x.WithView(zero_filled).tensor(), dims.dims(), keepdim, dtype);
  }
  const std::vector<int64_t> inner = ElementDims(x, dims.dims());
  if (CanSegment(x, inner)) {
    Tensor sums = SegmentSum(dtype ? x.to(*dtype) : x, inner);
    if (dtype) sums = sums.to(*dtype);
    return keepdim ? KeepDims(x, sums, inner) : sums;
  }
  return One(OverDims(x, inner, keepdim, [&](const Tensor& t, IntArrayRef d, bool keep) {
    return Tensors{torch::sum(t, d, keep, dtype)};
  }));
}

NestedValue mean(const NestedTensor& x, const Dims& dims, bool keepdim, std::optional<torch::Dtype> dtype) {
  if (!dims.given()) return Whole(x, torch::mean(x.values(), dtype), keepdim);
  const NestedTensor cast = dtype ? x.to(*dtype) : x;
  TORCH_CHECK(torch::isFloatingType(cast.dtype()) || torch::isComplexType(cast.dtype()),
              "mean(): the dtype must be floating or complex, got ", cast.values().dtype());
  if (IsPerSample(x, dims)) {
    const Tensor means = SegmentMean(cast, AllDims(x));
    return keepdim ? means.unsqueeze(x.batch_dim()) : means;
  }
  const std::vector<int64_t> inner = ElementDims(x, dims.dims());
  if (CanSegment(x, inner)) {
    const Tensor means = SegmentMean(cast, inner);
    return keepdim ? KeepDims(x, means, inner) : means;
  }
  return One(OverDims(cast, inner, keepdim,
                      [](const Tensor& t, IntArrayRef d, bool keep) { return Tensors{torch::mean(t, d, keep)}; }));
}

NestedValue prod(const NestedTensor& x, const Dims& dim, bool keepdim, std::optional<torch::Dtype> dtype) {
  if (!dim.given()) return Whole(x, torch::prod(x.values(), dtype), keepdim);
  if (IsPerSample(x, dim)) return PerSample(x, keepdim, [&](const Tensor& t) { return torch::prod(t, dtype); });
  TORCH_CHECK_VALUE(dim.dims().size() == 1, "prod takes one dim, got ", dim.dims().size());
  return Statistic(
      x, dim, keepdim, [](const Tensor& t) { return t; },
      [&](const Tensor& t, IntArrayRef d, bool keep) { return torch::prod(t, d[0], keep, dtype); });
}

#define ATHANOR_NESTED_DEFINE(name)                                                                         \
  NestedValue name(const NestedTensor& x, const Dims& dims, bool keepdim) {                                 \
    if (IsPerSample(x, dims)) return PerSample(x, keepdim, [](const Tensor& t) { return torch::name(t); }); \
    return Statistic(                                                                                       \
        x, dims, keepdim, [](const Tensor& t) { return torch::name(t); },                                   \
        [](const Tensor& t, IntArrayRef d, bool keep) { return torch::name(t, d, keep); });                 \
  }
ATHANOR_NESTED_DEFINE(any)
ATHANOR_NESTED_DEFINE(all)
#undef ATHANOR_NESTED_DEFINE

Tensor max(const NestedTensor& x) {
  Extremal(x, {}, "max");
  return torch::max(x.values());
}

Tensor min(const NestedTensor& x) {
  Extremal(x, {}, "min");
  return torch::min(x.values());
}

ValuesAndIndices max(const NestedTensor& x, int64_t dim, bool keepdim) {
  return Extreme(x, dim, keepdim, true, [](const Tensor& t, int64_t d, bool keep) { return torch::max(t, d, keep); });
}

ValuesAndIndices min(const NestedTensor& x, int64_t dim, bool keepdim) {
  return Extreme(x, dim, keepdim, false, [](const Tensor& t, int64_t d, bool keep) { return torch::min(t, d, keep); });
}

#define ATHANOR_NESTED_DEFINE(name)                                                         \
  NestedValue name(const NestedTensor& x, const Dims& dims, bool keepdim) {                 \
    return Statistic(                                                                       \
        x, dims, keepdim, [](const Tensor& t) { return torch::name(t); },                   \
        [](const Tensor& t, IntArrayRef d, bool keep) { return torch::name(t, d, keep); }); \
  }
ATHANOR_NESTED_DEFINE(nansum)
ATHANOR_NESTED_DEFINE(nanmean)
#undef ATHANOR_NESTED_DEFINE

#define ATHANOR_NESTED_DEFINE(name, segment)                                                \
  NestedValue name(const NestedTensor& x, const Dims& dims, bool keepdim) {                 \
    const std::vector<int64_t> inner = Extremal(x, dims, #name);                            \
    if (dims.given() && CanSegmentFloats(x, inner)) {                                       \
      const Tensor found = segment(x, inner);                                               \
      return keepdim ? KeepDims(x, found, inner) : found;                                   \
    }                                                                                       \
    return Statistic(                                                                       \
        x, dims, keepdim, [](const Tensor& t) { return torch::name(t); },                   \
        [](const Tensor& t, IntArrayRef d, bool keep) { return torch::name(t, d, keep); }); \
  }
ATHANOR_NESTED_DEFINE(amax, SegmentAmax)
ATHANOR_NESTED_DEFINE(amin, SegmentAmin)
#undef ATHANOR_NESTED_DEFINE

NestedValue count_nonzero(const NestedTensor& x, const Dims& dims) {
  return Statistic(
      x, dims, false, [](const Tensor& t) { return torch::count_nonzero(t); },
      [](const Tensor& t, IntArrayRef d, bool) { return torch::count_nonzero(t, d); });
}

std::pair<NestedValue, NestedValue> aminmax(const NestedTensor& x, std::optional<int64_t> dim, bool keepdim) {
  const Dims dims = dim ? Dims(*dim) : Dims();
  return {amin(x, dims, keepdim), amax(x, dims, keepdim)};
}

NestedValue logsumexp(const NestedTensor& x, const Dims& dims, bool keepdim) {
  TORCH_CHECK_TYPE(dims.given(), "logsumexp needs `dims`");
  return Statistic(
      x, dims, keepdim, [](const Tensor& t) { return t; },
      [](const Tensor& t, IntArrayRef d, bool keep) { return torch::logsumexp(t, d, keep); });
}

#define ATHANOR_NESTED_DEFINE(name, segment)                                                        \
  NestedValue name(const NestedTensor& x, const Dims& dims, int64_t correction, bool keepdim) {     \
    const std::optional<torch::Scalar> by = correction;                                             \
    if (dims.given()) {                                                                             \
      const std::vector<int64_t> inner = ElementDims(x, dims.dims());                               \
      if (CanSegmentFloats(x, inner)) {                                                             \
        const Tensor found = segment(x, inner, correction);                                         \
        return keepdim ? KeepDims(x, found, inner) : found;                                         \
      }                                                                                             \
    }                                                                                               \
    return Statistic(                                                                               \
        x, dims, keepdim, [&](const Tensor& t) { return torch::name(t, std::nullopt, by, false); }, \
        [&](const Tensor& t, IntArrayRef d, bool keep) { return torch::name(t, d, by, keep); });    \
  }
ATHANOR_NESTED_DEFINE(var, SegmentVar)
ATHANOR_NESTED_DEFINE(std, SegmentStd)
#undef ATHANOR_NESTED_DEFINE

std::pair<NestedValue, NestedValue> var_mean(const NestedTensor& x, const Dims& dims, int64_t correction,
                                             bool keepdim) {
  return {var(x, dims, correction, keepdim), mean(x, dims, keepdim)};
}

std::pair<NestedValue, NestedValue> std_mean(const NestedTensor& x, const Dims& dims, int64_t correction,
                                             bool keepdim) {
  return {std(x, dims, correction, keepdim), mean(x, dims, keepdim)};
}

NestedValue norm(const NestedTensor& x, const torch::Scalar& p, const Dims& dims, bool keepdim) {
  if (!dims.given()) return PerElement(x, [&](const Tensor& t) { return torch::norm(t, p); });
  return Statistic(
      x, dims, keepdim, [](const Tensor& t) { return t; },
      [&](const Tensor& t, IntArrayRef d, bool keep) { return torch::norm(t, p, d, keep); });
}

#define ATHANOR_NESTED_DEFINE(name, largest)                                                   \
  NestedValue name(const NestedTensor& x, std::optional<int64_t> dim, bool keepdim) {          \
    const std::vector<int64_t> inner = Extremal(x, dim ? Dims(*dim) : Dims(), #name);          \
    if (dim && !x.device().is_cpu() && CanSegmentFloats(x, inner)) {                           \
      const Tensor found = SegmentExtreme(x, inner, largest).second;                           \
      return keepdim ? KeepDims(x, found, inner) : found;                                      \
    }                                                                                          \
    return Statistic(                                                                          \
        x, dim ? Dims(*dim) : Dims(), keepdim, [](const Tensor& t) { return torch::name(t); }, \
        [](const Tensor& t, IntArrayRef d, bool keep) { return torch::name(t, d[0], keep); }); \
  }
ATHANOR_NESTED_DEFINE(argmax, true)
ATHANOR_NESTED_DEFINE(argmin, false)
#undef ATHANOR_NESTED_DEFINE

#define ATHANOR_NESTED_DEFINE(name)                                                                               \
  Tensor name(const NestedTensor& x) {                                                                            \
    return torch::name(x.values());                                                                               \
  }                                                                                                               \
  ValuesAndIndices name(const NestedTensor& x, int64_t dim, bool keepdim) {                                       \
    return Along(x, dim, keepdim, [](const Tensor& t, int64_t d, bool keep) { return torch::name(t, d, keep); }); \
  }
ATHANOR_NESTED_DEFINE(median)
ATHANOR_NESTED_DEFINE(nanmedian)
#undef ATHANOR_NESTED_DEFINE

ValuesAndIndices mode(const NestedTensor& x, int64_t dim, bool keepdim) {
  return Along(x, dim, keepdim, [](const Tensor& t, int64_t d, bool keep) { return torch::mode(t, d, keep); });
}

ValuesAndIndices kthvalue(const NestedTensor& x, int64_t k, int64_t dim, bool keepdim) {
  return Along(x, dim, keepdim, [&](const Tensor& t, int64_t d, bool keep) { return torch::kthvalue(t, k, d, keep); });
}

#define ATHANOR_NESTED_DEFINE(name)                                                                               \
  NestedValue name(const NestedTensor& x, double q, std::optional<int64_t> dim, bool keepdim,                     \
                   const std::string& interpolation) {                                                            \
    return Statistic(                                                                                             \
        x, dim ? Dims(*dim) : Dims(), keepdim,                                                                    \
        [&](const Tensor& t) { return torch::name(t.flatten(), q, std::nullopt, false, interpolation); },         \
        [&](const Tensor& t, IntArrayRef d, bool keep) { return torch::name(t, q, d[0], keep, interpolation); }); \
  }
ATHANOR_NESTED_DEFINE(quantile)
ATHANOR_NESTED_DEFINE(nanquantile)
#undef ATHANOR_NESTED_DEFINE

}  // namespace athanor::nested
