#include "athanor/nested/ops/segment.h"

#include <algorithm>
#include <limits>

namespace athanor::nested {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool IsHalf(torch::Dtype dtype) {
  return dtype == torch::kFloat16 || dtype == torch::kBFloat16;
}

bool Contains(const std::vector<int64_t>& dims, int64_t dim) {
  return std::find(dims.begin(), dims.end(), dim) != dims.end();
}

// What segment kernels take: R x …, the element of each row and the rows of each element.
struct Segments {
  Tensor rows, element, lengths;
};

Segments RowsOf(const NestedTensor& x) {
  return {x.values(), x.structure()->ElementOfRow(x.device()), x.structure()->PackedSizes(x.device())};
}

std::vector<int64_t> PackedDims(const NestedTensor& x, const std::vector<int64_t>& dims) {
  std::vector<int64_t> packed;
  for (const int64_t dim : dims) {
    if (const auto at = PackedDim(*x.structure(), dim)) packed.push_back(*at);
  }
  return packed;
}

// The static dims among `dims` become rows too, so that one reduction over rows is one over all of `dims`.
Segments RowsOver(const NestedTensor& x, const std::vector<int64_t>& dims) {
  Segments segments = RowsOf(x);
  std::vector<int64_t> order = PackedDims(x, dims);
  if (order.empty()) return segments;
  std::sort(order.begin(), order.end());
  int64_t factor = 1;
  for (const int64_t dim : order) factor *= x.values().size(dim);
  std::vector<int64_t> sizes = {x.values().size(0) * factor};
  order.insert(order.begin(), 0);
  for (int64_t dim = 1; dim < x.values().dim(); ++dim) {
    if (Contains(order, dim)) continue;
    sizes.push_back(x.values().size(dim));
    order.push_back(dim);
  }
  return {x.values().permute(order).reshape(sizes), segments.element.repeat_interleave(factor),
          segments.lengths * factor};
}

// Elements of many numbers are reduced faster on a CPU by its vectorised kernels, one call for each of them.
bool IsWorthCalls(const Tensor& rows, int64_t elements) {
  constexpr int64_t kNumbersOfACall = 4096;
  return rows.is_cpu() && rows.numel() >= kNumbersOfACall * elements;
}

Tensor Reduce(const Segments& s, const char* how, double initial) {
  if (IsWorthCalls(s.rows, s.lengths.size(0))) {
    const int64_t* lengths = s.lengths.const_data_ptr<int64_t>();
    std::vector<Tensor> results;
    const std::string_view name = how;
    int64_t next = 0;
    for (int64_t b = 0; b < s.lengths.size(0); ++b) {
      const Tensor rows = s.rows.narrow(0, next, lengths[b]);
      next += lengths[b];
      if (lengths[b] == 0)
        results.push_back(torch::full(rows.sizes().slice(1), initial, rows.options()));
      else
        results.push_back(name == "sum" ? rows.sum(0) : name == "max" ? rows.amax(0) : rows.amin(0));
    }
    return torch::stack(results);
  }
  return torch::segment_reduce(s.rows.contiguous(), how, s.lengths, std::nullopt, std::nullopt, 0, /*unsafe=*/true,
                               torch::Scalar(initial));
}

// ATen's segment_reduce can be differentiated once only: its backward has no derivative.
class SumOfRows : public torch::autograd::Function<SumOfRows> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& rows, const Tensor& element, const Tensor& lengths) {
    context->save_for_backward({element});
    return Reduce({rows, element, lengths}, "sum", 0);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    return {gradients[0].index_select(0, context->get_saved_variables()[0]), Tensor(), Tensor()};
  }
};

// R x … -> B x …
Tensor RowSums(const Segments& s) {
  if (torch::isFloatingType(s.rows.scalar_type()) && s.rows.numel() > 0) {
    return SumOfRows::apply(s.rows, s.element, s.lengths);
  }
  std::vector<int64_t> sizes = s.rows.sizes().vec();
  sizes[0] = s.lengths.size(0);
  return torch::zeros(sizes, s.rows.options().requires_grad(false)).index_add(0, s.element, s.rows);
}

// R x … -> B x …, without gradient.
Tensor Extremes(const Segments& s, bool largest) {
  const torch::NoGradGuard no_grad;
  const torch::Dtype dtype = s.rows.scalar_type();
  if (torch::isFloatingType(dtype) && s.rows.numel() > 0) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    return Reduce({s.rows.detach(), s.element, s.lengths}, largest ? "max" : "min", largest ? -kInfinity : kInfinity);
  }
  std::vector<int64_t> sizes = s.rows.sizes().vec();
  std::vector<int64_t> ones(sizes.size(), 1);
  ones[0] = sizes[0];
  sizes[0] = s.lengths.size(0);
  return torch::zeros(sizes, s.rows.options().requires_grad(false))
      .scatter_reduce(0, s.element.reshape(ones).expand_as(s.rows), s.rows.detach(), largest ? "amax" : "amin",
                      /*include_self=*/false);
}

// The gradient goes in equal parts to the entries that tie, as in torch's amax.
class ExtremeOfRows : public torch::autograd::Function<ExtremeOfRows> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& rows, const Tensor& element, const Tensor& lengths,
                        bool largest) {
    const Tensor extremes = Extremes({rows, element, lengths}, largest);
    context->save_for_backward({rows, extremes, element});
    return extremes;
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor element = saved[2];
    const Tensor ties = [&] {
      const torch::NoGradGuard no_grad;
      return (saved[0] == saved[1].index_select(0, element)).to(gradients[0].scalar_type());
    }();
    const Tensor counts = torch::zeros_like(saved[1]).index_add(0, element, ties).detach();
    return {(gradients[0] / counts).index_select(0, element) * ties, Tensor(), Tensor(), Tensor()};
  }
};

Tensor SharedExtreme(const NestedTensor& x, const std::vector<int64_t>& dims, bool largest) {
  const Segments s = RowsOver(x, dims);
  return ExtremeOfRows::apply(s.rows, s.element, s.lengths, largest);
}

// Entries of each element over `dims` as B x 1…, to divide `like` by.
Tensor Counts(const NestedTensor& x, const std::vector<int64_t>& dims, const Tensor& like) {
  int64_t factor = 1;
  for (const int64_t dim : PackedDims(x, dims)) factor *= x.values().size(dim);
  std::vector<int64_t> sizes(static_cast<size_t>(like.dim()), 1);
  sizes[0] = x.len();
  return (x.structure()->PackedSizes(x.device()) * factor).to(like.scalar_type()).reshape(sizes);
}

}  // namespace

bool CanSegment(const NestedTensor& x, const std::vector<int64_t>& dims) {
  const auto& varying = x.structure()->varying_dims();
  return !varying.empty() &&
         std::all_of(varying.begin(), varying.end(), [&](int64_t dim) { return Contains(dims, dim); });
}

void CheckHasEntries(const NestedTensor& x, const std::vector<int64_t>& dims, const char* function) {
  for (int64_t b = 0; b < x.len(); ++b) {
    const auto sizes = x.structure()->sizes(b);
    const bool empty =
        std::any_of(dims.begin(), dims.end(), [&](int64_t dim) { return sizes[static_cast<size_t>(dim)] == 0; });
    TORCH_CHECK_INDEX(!empty, function, ": element ", b, " of shape ", sizes,
                      " has no entries to reduce, so it has no ", "extreme");
  }
}

Tensor SegmentSum(const NestedTensor& x, const std::vector<int64_t>& dims) {
  Tensor values = x.values();
  const torch::Dtype dtype = values.scalar_type();
  if (IsHalf(dtype)) values = values.to(torch::kFloat32);
  if (!torch::isFloatingType(dtype) && !torch::isComplexType(dtype)) values = values.to(torch::kInt64);
  const std::vector<int64_t> packed = PackedDims(x, dims);
  if (!packed.empty()) values = values.sum(packed);
  Segments segments = RowsOf(x);
  segments.rows = values;
  const Tensor sums = RowSums(segments);
  return IsHalf(dtype) ? sums.to(dtype) : sums;
}

Tensor SegmentMean(const NestedTensor& x, const std::vector<int64_t>& dims) {
  const NestedTensor wide = IsHalf(x.dtype()) ? x.to(torch::kFloat32) : x;
  const Tensor sums = SegmentSum(wide, dims);
  return (sums / Counts(x, dims, sums)).to(x.dtype());
}

Tensor SegmentVar(const NestedTensor& x, const std::vector<int64_t>& dims, int64_t correction) {
  const NestedTensor wide = IsHalf(x.dtype()) ? x.to(torch::kFloat32) : x;
  std::vector<int64_t> sizes = wide.values().sizes().vec();
  sizes[0] = x.len();
  for (const int64_t dim : PackedDims(x, dims)) sizes[static_cast<size_t>(dim)] = 1;
  const Tensor element = x.structure()->ElementOfRow(x.device());
  const Tensor centred = wide.values() - SegmentMean(wide, dims).reshape(sizes).index_select(0, element);
  const Tensor squares = SegmentSum(wide.WithValues(centred.square()), dims);
  return (squares / (Counts(x, dims, squares) - correction).clamp_min(0)).to(x.dtype());
}

Tensor SegmentStd(const NestedTensor& x, const std::vector<int64_t>& dims, int64_t correction) {
  const Tensor variance = SegmentVar(x, dims, correction);
  const Tensor constant = variance == 0;  // there the root has no derivative, and torch's std gives 0
  return torch::where(constant, torch::zeros_like(variance), variance.masked_fill(constant, 1).sqrt());
}

Tensor SegmentAmax(const NestedTensor& x, const std::vector<int64_t>& dims) {
  return SharedExtreme(x, dims, true);
}

Tensor SegmentAmin(const NestedTensor& x, const std::vector<int64_t>& dims) {
  return SharedExtreme(x, dims, false);
}

std::pair<Tensor, Tensor> SegmentExtreme(const NestedTensor& x, const std::vector<int64_t>& dims, bool largest) {
  const Segments s = RowsOver(x, dims);
  const Tensor extremes = Extremes(s, largest);
  const torch::TensorOptions whole = s.element.options();
  std::vector<int64_t> column(static_cast<size_t>(s.rows.dim()), 1);
  column[0] = -1;
  const Tensor beyond = torch::full({}, s.rows.size(0), whole);
  Tensor hit = s.rows.detach() == extremes.index_select(0, s.element);
  if (torch::isFloatingType(s.rows.scalar_type())) hit = hit.logical_or(s.rows.detach().isnan());
  const Tensor places = torch::where(hit, torch::arange(s.rows.size(0), whole).reshape(column), beyond);
  const Tensor first = Extremes({places, s.element, s.lengths}, /*largest=*/false);  // the row, counted over the batch
  const Tensor begins = (s.lengths.cumsum(0) - s.lengths).reshape(column);
  return {s.rows.gather(0, first), first - begins};
}

Tensor KeepDims(const NestedTensor& x, const Tensor& reduced, const std::vector<int64_t>& dims) {
  const NestedStructure& structure = *x.structure();
  std::vector<int64_t> sizes = {structure.batch_size()};
  for (int64_t d = 0; d < structure.rank(); ++d) {
    sizes.push_back(Contains(dims, d) ? 1 : structure.max_sizes()[static_cast<size_t>(d)]);
  }
  return reduced.reshape(sizes);
}

NestedTensor SegmentSoftmax(const NestedTensor& x, bool logarithm) {
  if (IsWorthCalls(x.values(), x.len())) {
    const int64_t dim = x.structure()->varying_dims()[0];
    return PerElement(x, [&](const Tensor& t) { return logarithm ? t.log_softmax(dim) : t.softmax(dim); });
  }
  Segments segments = RowsOf(x);
  if (IsHalf(x.dtype())) segments.rows = segments.rows.to(torch::kFloat32);
  // Subtracting the maximum does not change the result, so it has no gradient. A maximum of infinity makes every entry
  // of the element NaN, as in torch.
  const Tensor shifted = segments.rows - Extremes(segments, true).index_select(0, segments.element);
  const Tensor exponentials = shifted.exp();
  segments.rows = exponentials;
  const Tensor sums = RowSums(segments);
  const Tensor result = logarithm ? shifted - sums.log().index_select(0, segments.element)
                                  : exponentials / sums.index_select(0, segments.element);
  return x.WithValues(result.to(x.dtype()));
}

}  // namespace athanor::nested
