#include "athanor/tensor/nested_segment.h"

#include <algorithm>

namespace athanor::nested {
namespace {

using torch::Tensor;

bool IsHalf(torch::Dtype dtype) {
  return dtype == torch::kFloat16 || dtype == torch::kBFloat16;
}

// rows x … -> B x …
Tensor RowSums(const Tensor& rows, const NestedStructure& structure) {
  if (torch::isFloatingType(rows.scalar_type()) && rows.dim() >= 1 && rows.numel() > 0) {
    const Tensor lengths = torch::tensor(structure.packed_sizes(), torch::kInt64).to(rows.device());
    return torch::segment_reduce(rows.contiguous(), "sum", lengths, std::nullopt, std::nullopt, 0, /*unsafe=*/true,
                                 torch::Scalar(0));
  }
  std::vector<int64_t> sizes = rows.sizes().vec();
  sizes[0] = structure.batch_size();
  return torch::zeros(sizes, rows.options()).index_add(0, structure.ElementOfRow(rows.device()), rows);
}

}  // namespace

bool CanSegment(const NestedTensor& x, const std::vector<int64_t>& dims) {
  const auto& varying = x.structure()->varying_dims();
  return !varying.empty() && std::all_of(varying.begin(), varying.end(), [&](int64_t d) {
    return std::find(dims.begin(), dims.end(), d) != dims.end();
  });
}

Tensor SegmentSum(const NestedTensor& x, const std::vector<int64_t>& dims) {
  Tensor values = x.values();
  const torch::Dtype dtype = values.scalar_type();
  if (IsHalf(dtype)) values = values.to(torch::kFloat32);
  if (!torch::isFloatingType(dtype) && !torch::isComplexType(dtype)) values = values.to(torch::kInt64);
  std::vector<int64_t> packed;
  for (const int64_t dim : dims) {
    if (const auto at = PackedDim(*x.structure(), dim)) packed.push_back(*at);
  }
  if (!packed.empty()) values = values.sum(packed);
  const Tensor sums = RowSums(values, *x.structure());
  return IsHalf(dtype) ? sums.to(dtype) : sums;
}

Tensor SegmentMean(const NestedTensor& x, const std::vector<int64_t>& dims) {
  const NestedStructure& structure = *x.structure();
  std::vector<double> counts;
  for (int64_t b = 0; b < structure.batch_size(); ++b) {
    double count = 1;
    for (const int64_t dim : dims) count *= static_cast<double>(structure.sizes(b)[static_cast<size_t>(dim)]);
    counts.push_back(count);
  }
  const NestedTensor wide = IsHalf(x.dtype()) ? x.to(torch::kFloat32) : x;
  const Tensor sums = SegmentSum(wide, dims);
  std::vector<int64_t> sizes(static_cast<size_t>(sums.dim()), 1);
  sizes[0] = structure.batch_size();
  const Tensor divisor = torch::tensor(counts, torch::kFloat64).to(sums.options().requires_grad(false)).reshape(sizes);
  return (sums / divisor).to(x.dtype());
}

Tensor KeepDims(const NestedTensor& x, const Tensor& reduced, std::vector<int64_t> dims) {
  const NestedStructure& structure = *x.structure();
  std::vector<int64_t> sizes = {structure.batch_size()};
  for (int64_t d = 0; d < structure.rank(); ++d) {
    const bool gone = std::find(dims.begin(), dims.end(), d) != dims.end();
    sizes.push_back(gone ? 1 : structure.max_sizes()[static_cast<size_t>(d)]);
  }
  return reduced.reshape(sizes);
}

NestedTensor SegmentSoftmax(const NestedTensor& x, bool logarithm) {
  const NestedStructure& structure = *x.structure();
  const Tensor values = IsHalf(x.dtype()) ? x.values().to(torch::kFloat32) : x.values();
  const Tensor element = structure.ElementOfRow(x.device());
  Tensor top;
  {
    const torch::NoGradGuard no_grad;  // subtracting the maximum does not change the result
    std::vector<int64_t> sizes = values.sizes().vec();
    sizes[0] = structure.batch_size();
    std::vector<int64_t> ones(sizes.size(), 1);
    ones[0] = structure.rows();
    top = torch::full(sizes, -INFINITY, values.options().requires_grad(false))
              .scatter_reduce(0, element.reshape(ones).expand_as(values), values, "amax");
    top = torch::where(top.isfinite(), top, torch::zeros_like(top)).index_select(0, element);
  }
  const Tensor shifted = values - top;
  const Tensor exponentials = shifted.exp();
  const Tensor sums = RowSums(exponentials, structure).index_select(0, element);
  const Tensor result = logarithm ? shifted - sums.log() : exponentials / sums;
  return x.WithValues(result.to(x.dtype()));
}

}  // namespace athanor::nested
