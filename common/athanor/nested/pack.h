// How elements become packed rows and back, and the three rules by which operations on NestedTensors work:
//
//   Packed      one call on the packed values (pointwise, row-wise, along trailing static dims)
//   Aligned     several operands brought to one structure, then one call on their packed values
//   PerElement  one call for each element, results packed again: the base for everything else
//
// All are differentiable when the called function is.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "athanor/nested/tensor.h"

namespace athanor::nested {

using TensorFn = std::function<torch::Tensor(const torch::Tensor&)>;
using TensorsFn = std::function<torch::Tensor(const std::vector<torch::Tensor>&)>;
using TensorListFn = std::function<std::vector<torch::Tensor>(const std::vector<torch::Tensor>&)>;

// Elements of one rank, dtype and device -> packed values and structure.
std::pair<torch::Tensor, NestedStructure::Ptr> PackElements(const std::vector<torch::Tensor>& elements);
// `rows` of element `index` -> the element, a view.
torch::Tensor UnpackElement(const torch::Tensor& rows, const NestedStructure& structure, int64_t index);
// Packed values -> B x max sizes, batch first.
torch::Tensor Padded(const torch::Tensor& values, const NestedStructure& structure, const torch::Scalar& padding);
// B x (at least) max sizes, batch first -> packed values.
torch::Tensor Unpadded(const torch::Tensor& padded, const NestedStructure& structure);

// Packs what an operation made of the elements of `like`; dtypes are those of the results, view options those of
// `like`.
NestedTensor Repack(const std::vector<torch::Tensor>& elements, const NestedTensor& like);
// One dense tensor B x … when all results have one shape, else nested.
NestedValue StackOrRepack(const std::vector<torch::Tensor>& elements, const NestedTensor& like);
// The dense tensor B x … of a nested one whose elements have one shape, else itself.
NestedValue DenseIfSame(NestedTensor x);

// `fn` keeps the packed shape (pointwise).
NestedTensor Packed(const NestedTensor& x, const TensorFn& fn);
// `fn` treats all but the last `count` dims as batch dims and may change those. One call on the packed values when they
// are static, else one for each element.
NestedTensor OnTail(const NestedTensor& x, int64_t count, const TensorFn& fn);
NestedTensor PerElement(const NestedTensor& x, const TensorFn& fn);
// What a dense operand that broadcasts to the padded shape of a nested one (as many dims) gives each element: its part
// of that, without padding, or the whole, for functions whose dims mean something else (products of matrices).
enum class DenseOperands { kPadded, kWhole };
// The same for functions of several operands. Nested ones give their element, dense ones a part or themselves, as said
// above. A number gets the dtype of the first nested operand where that can hold it. Throws c10::ValueError when batch
// sizes differ. Result i of all elements makes output i.
// A batch without elements has no results to learn from: it comes back as it is.
NestedTensor PerElement(const std::vector<NestedValue>& operands, const TensorsFn& fn,
                        DenseOperands dense = DenseOperands::kPadded);
std::vector<std::vector<torch::Tensor>> EachElement(const std::vector<NestedValue>& operands, const TensorListFn& fn,
                                                    DenseOperands dense = DenseOperands::kPadded);

// The first nested operand; throws c10::TypeError when there is none.
NestedTensor FirstNested(const std::vector<NestedValue>& operands);

// Pointwise over operands that broadcast:
//   nested, equal structure   one call on the packed values
//   nested, other structure   element by element (batch sizes must agree: c10::ValueError)
//   dense, no dims            as it is
//   dense, rank <= an element's and of size 1 along varying dims: broadcast to every element
//   dense, broadcasts to shape(): taken position by position, whatever lies at padding is not looked at
//   else c10::ValueError
// Where nested operands differ in structure, "element" and shape() are those that they broadcast to. Dims of size 1 in
// all elements grow when an operand is wider there.
NestedTensor Aligned(const std::vector<NestedValue>& operands, const TensorsFn& fn);
// A dense operand in the layout of x's packed values: broadcastable to them, or wider where they have a static dim of
// size 1. Absent when it does not fit.
std::optional<torch::Tensor> AlignDense(const NestedTensor& x, const torch::Tensor& dense);

// True for a number among the operands (a dense tensor without dims that does not promote dtypes).
bool IsNumber(const NestedValue& operand);
// Numbers made tensors of the dtype and device of the first nested operand, for functions that want one dtype. A number
// that the dtype cannot hold (a fraction among integers) stays as it is.
std::vector<NestedValue> NumbersAlike(std::vector<NestedValue> operands);
// Numbers and dense tensors without dims that are on the CPU, brought to the device of the first nested operand; a
// number is made there, so that nobody waits for a copy. Aligned() does so with three operands and more.
std::vector<NestedValue> NumbersOnDevice(std::vector<NestedValue> operands);

// A dim in the coordinates of x (batch dim counted, negative from the end) -> the dim of an element. Throws
// c10::IndexError out of range, c10::ValueError for the batch dim, which no operation but those that say so accept.
int64_t ElementDim(const NestedTensor& x, int64_t dim);
std::vector<int64_t> ElementDims(const NestedTensor& x, torch::IntArrayRef dims);
bool IsBatchDim(const NestedTensor& x, int64_t dim);  // c10::IndexError out of range
// Dim of the packed values that a static element dim is; nullopt for varying ones.
std::optional<int64_t> PackedDim(const NestedStructure& structure, int64_t element_dim);

}  // namespace athanor::nested
