// Reductions over the rows of each element at once: one kernel for the whole batch instead of one for each element, but
// for large elements on a CPU, where that is slower.
// Half precision is accumulated in float32. Differentiable any number of times where a gradient exists. Nothing here
// copies from or waits for a device, but for the first use of a structure there (nested/structure.h).
#pragma once

#include <torch/torch.h>

#include <utility>
#include <vector>

#include "athanor/nested/pack.h"

namespace athanor::nested {

// True when reducing these element dims reduces all varying ones, so that every element's result has one shape.
bool CanSegment(const NestedTensor& x, const std::vector<int64_t>& dims);
// Throws c10::IndexError when an element has no entry along `dims`, naming it and `function`.
void CheckHasEntries(const NestedTensor& x, const std::vector<int64_t>& dims, const char* function);

// All give B x the sizes of the dims that stay. Integers add up in int64.
torch::Tensor SegmentSum(const NestedTensor& x, const std::vector<int64_t>& dims);
torch::Tensor SegmentMean(const NestedTensor& x, const std::vector<int64_t>& dims);
// Floating dtypes. Divided by max(0, entries - correction).
torch::Tensor SegmentVar(const NestedTensor& x, const std::vector<int64_t>& dims, int64_t correction);
torch::Tensor SegmentStd(const NestedTensor& x, const std::vector<int64_t>& dims, int64_t correction);
// Every element has entries. NaN wins, as in torch; entries that tie share the gradient.
torch::Tensor SegmentAmax(const NestedTensor& x, const std::vector<int64_t>& dims);
torch::Tensor SegmentAmin(const NestedTensor& x, const std::vector<int64_t>& dims);
// The extreme and the position of its first entry along `dims` (packed order), which gets the whole gradient.
std::pair<torch::Tensor, torch::Tensor> SegmentExtreme(const NestedTensor& x, const std::vector<int64_t>& dims,
                                                       bool largest);
// B x … -> the same with a dim of size 1 in each reduced place.
torch::Tensor KeepDims(const NestedTensor& x, const torch::Tensor& reduced, const std::vector<int64_t>& dims);
// Over the rows of each element (x has one varying dim): exp(x - max) / sum, or its logarithm.
NestedTensor SegmentSoftmax(const NestedTensor& x, bool logarithm);

}  // namespace athanor::nested
