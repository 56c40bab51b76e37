// Reductions over the rows of each element at once: one kernel for the whole batch instead of one for each element.
// Half precision is accumulated in float32.
#pragma once

#include <torch/torch.h>

#include <vector>

#include "athanor/tensor/nested_pack.h"

namespace athanor::nested {

// True when reducing these element dims reduces all varying ones, so that every element's result has one shape.
bool CanSegment(const NestedTensor& x, const std::vector<int64_t>& dims);
// B x the sizes of the dims that stay. Integers add up in int64.
torch::Tensor SegmentSum(const NestedTensor& x, const std::vector<int64_t>& dims);
torch::Tensor SegmentMean(const NestedTensor& x, const std::vector<int64_t>& dims);
// B x … -> the same with a dim of size 1 in each reduced place.
torch::Tensor KeepDims(const NestedTensor& x, const torch::Tensor& reduced, std::vector<int64_t> dims);
// Over the rows of each element (x has one varying dim): exp(x - max) / sum, or its logarithm.
NestedTensor SegmentSoftmax(const NestedTensor& x, bool logarithm);

}  // namespace athanor::nested
