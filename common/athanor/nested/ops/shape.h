// Shape operations on NestedTensors. Dims count the batch dim (nested/tensor.h); an operation acts inside the elements.
//
//   nested::transpose(x, 1, 2)      element dims; of the batch dim and the first element dim it only toggles
//                                   batch_first
//   nested::reshape(x, {3, -1})     every element; entries that equal the padded maximum mean "its own size", a leading
//                                   entry for the batch is optional, one -1 is inferred for each element
//   nested::cat({x, y})             batch dim: joins the batches; else inside the elements
//   nested::stack({x, y})           a new dim 0 of every ELEMENT, not of the batch; only that
//
// Other moves of the batch dim, and unsqueeze, squeeze or unflatten at or before it, are c10::ValueError.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "athanor/nested/ops/reduce.h"
#include "athanor/nested/tensor.h"

namespace athanor::nested {

NestedTensor transpose(const NestedTensor& x, int64_t dim0, int64_t dim1);
inline NestedTensor swapaxes(const NestedTensor& x, int64_t dim0, int64_t dim1) {
  return transpose(x, dim0, dim1);
}
inline NestedTensor swapdims(const NestedTensor& x, int64_t dim0, int64_t dim1) {
  return transpose(x, dim0, dim1);
}
NestedTensor permute(const NestedTensor& x, const std::vector<int64_t>& dims);  // all dims; the batch dim stays
NestedTensor movedim(const NestedTensor& x, const Dims& source, const Dims& destination);
inline NestedTensor moveaxis(const NestedTensor& x, const Dims& from, const Dims& to) {
  return movedim(x, from, to);
}
NestedTensor T(const NestedTensor& x);   // element dims reversed
NestedTensor mT(const NestedTensor& x);  // the last two swapped; elements of rank >= 2

NestedTensor unsqueeze(const NestedTensor& x, int64_t dim);
NestedTensor squeeze(const NestedTensor& x, const Dims& dims = {});  // without dims: those of size 1 in every element
NestedTensor unflatten(const NestedTensor& x, int64_t dim, const std::vector<int64_t>& sizes);
// A range with the batch dim flattens the padded view (dense), else nested.
NestedValue flatten(const NestedTensor& x, int64_t start_dim = 0, int64_t end_dim = -1);
NestedTensor reshape(const NestedTensor& x, const std::vector<int64_t>& shape);
NestedTensor view(const NestedTensor& x, const std::vector<int64_t>& shape);
// Element dims of size 1 grow; -1 keeps; as many sizes as dims, that of the batch -1 or its size.
NestedTensor expand(const NestedTensor& x, const std::vector<int64_t>& sizes);

// Dense operands count as one element (batch dim only). View options must agree, batch sizes too along other dims.
NestedTensor cat(const std::vector<NestedValue>& tensors, int64_t dim = 0);
NestedTensor stack(const std::vector<NestedValue>& tensors, int64_t dim = 0);
// Along an element dim every element must give as many parts (c10::ValueError). Along the batch dim a part shares the
// values of x where its elements alone would be packed in the same way, as torch's parts do; else it is a copy.
std::vector<NestedTensor> split(const NestedTensor& x, int64_t size, int64_t dim = 0);
std::vector<NestedTensor> split(const NestedTensor& x, const std::vector<int64_t>& sizes, int64_t dim = 0);
std::vector<NestedTensor> chunk(const NestedTensor& x, int64_t chunks, int64_t dim = 0);
std::vector<torch::Tensor> unbind(const NestedTensor& x, int64_t dim = 0);  // the batch dim only

NestedTensor flip(const NestedTensor& x, const std::vector<int64_t>& dims);
NestedTensor roll(const NestedTensor& x, const std::vector<int64_t>& shifts, const std::vector<int64_t>& dims = {});
NestedTensor rot90(const NestedTensor& x, int64_t k = 1, const std::vector<int64_t>& dims = {-2, -1});
NestedTensor tril(const NestedTensor& x, int64_t diagonal = 0);
NestedTensor triu(const NestedTensor& x, int64_t diagonal = 0);
NestedTensor diag(const NestedTensor& x, int64_t diagonal = 0);
NestedTensor diagflat(const NestedTensor& x, int64_t offset = 0);
NestedTensor diag_embed(const NestedTensor& x, int64_t offset = 0);
NestedTensor diagonal(const NestedTensor& x, int64_t offset = 0, int64_t dim1 = -2, int64_t dim2 = -1);
NestedTensor trace(const NestedTensor& x);
// Without dim every element is flattened.
NestedTensor repeat_interleave(const NestedTensor& x, int64_t repeats, std::optional<int64_t> dim = {});
NestedTensor nonzero(const NestedTensor& x);  // positions within each element: count x rank

// Along an element dim; index_select and index_* also along the batch dim where it says so. Operands: nested (one for
// each element) or dense (the same for all).
NestedTensor gather(const NestedTensor& x, int64_t dim, const NestedValue& index);
NestedTensor take_along_dim(const NestedTensor& x, const NestedValue& index, int64_t dim);
NestedTensor take(const NestedTensor& x, const NestedValue& index);
NestedTensor scatter(const NestedTensor& x, int64_t dim, const NestedValue& index, const NestedValue& source);
NestedTensor scatter_add(const NestedTensor& x, int64_t dim, const NestedValue& index, const NestedValue& source);
NestedTensor scatter_reduce(const NestedTensor& x, int64_t dim, const NestedValue& index, const NestedValue& source,
                            const std::string& reduce, bool include_self = true);
NestedTensor index_select(const NestedTensor& x, int64_t dim, const NestedValue& index);  // the batch dim too
NestedTensor index_add(const NestedTensor& x, int64_t dim, const NestedValue& index, const NestedValue& source,
                       const torch::Scalar& alpha = 1);
NestedTensor index_copy(const NestedTensor& x, int64_t dim, const NestedValue& index, const NestedValue& source);
NestedTensor index_fill(const NestedTensor& x, int64_t dim, const NestedValue& index, const torch::Scalar& value);
NestedTensor index_put(const NestedTensor& x, const std::vector<NestedValue>& indices, const NestedValue& values,
                       bool accumulate = false);
NestedTensor masked_select(const NestedTensor& x, const NestedValue& mask);
NestedTensor masked_scatter(const NestedTensor& x, const NestedValue& mask, const NestedValue& source);
NestedTensor searchsorted(const NestedValue& sorted, const NestedValue& values, bool right = false);

}  // namespace athanor::nested
