#include "athanor/tensor/nested_pack.h"

#include <algorithm>

namespace athanor::nested {
namespace {

bool IsIdentity(const std::vector<int64_t>& permutation) {
  for (size_t i = 0; i < permutation.size(); ++i) {
    if (permutation[i] != static_cast<int64_t>(i)) return false;
  }
  return true;
}

std::vector<int64_t> Inverse(const std::vector<int64_t>& permutation) {
  std::vector<int64_t> inverse(permutation.size());
  for (size_t i = 0; i < permutation.size(); ++i)
    inverse[static_cast<size_t>(permutation[i])] = static_cast<int64_t>(i);
  return inverse;
}

// {batch dim, varying dims…, static dims…} of the padded view and back.
std::vector<int64_t> WithBatch(const std::vector<int64_t>& permutation) {
  std::vector<int64_t> dims = {0};
  for (const int64_t d : permutation) dims.push_back(d + 1);
  return dims;
}

int64_t Slots(const NestedStructure& structure) {
  int64_t slots = structure.batch_size();
  for (const int64_t d : structure.varying_dims()) slots *= structure.max_sizes()[static_cast<size_t>(d)];
  return slots;
}

int64_t Normalised(const NestedTensor& x, int64_t dim) {
  const int64_t at = dim < 0 ? dim + x.dim() : dim;
  TORCH_CHECK_INDEX(at >= 0 && at < x.dim(), "Dimension out of range (expected to be in range of [", -x.dim(), ", ",
                    x.dim() - 1, "], but got ", dim, ")");
  return at;
}

}  // namespace

std::pair<torch::Tensor, NestedStructure::Ptr> PackElements(const std::vector<torch::Tensor>& elements) {
  const int64_t rank = elements.empty() ? 0 : elements[0].dim();
  std::vector<int64_t> sizes;
  for (const auto& element : elements) {
    TORCH_CHECK_VALUE(element.dim() == rank, "All elements of a NestedTensor must have the same number of dims, got ",
                      rank, " and ", element.dim());
    sizes.insert(sizes.end(), element.sizes().begin(), element.sizes().end());
  }
  auto structure = NestedStructure::Make(static_cast<int64_t>(elements.size()), rank, std::move(sizes));
  if (elements.empty()) return {torch::empty({0}), structure};
  const bool permuted = !IsIdentity(structure->permutation());
  std::vector<torch::Tensor> rows;
  rows.reserve(elements.size());
  for (size_t b = 0; b < elements.size(); ++b) {
    std::vector<int64_t> packed = {structure->packed_sizes()[b]};
    packed.insert(packed.end(), structure->static_sizes().begin(), structure->static_sizes().end());
    rows.push_back((permuted ? elements[b].permute(structure->permutation()) : elements[b]).reshape(packed));
  }
  return {torch::cat(rows), structure};
}

torch::Tensor UnpackElement(const torch::Tensor& rows, const NestedStructure& structure, int64_t index) {
  std::vector<int64_t> physical;
  for (const int64_t d : structure.permutation()) physical.push_back(structure.sizes(index)[static_cast<size_t>(d)]);
  torch::Tensor element = rows.reshape(physical);
  return IsIdentity(structure.permutation()) ? element : element.permute(Inverse(structure.permutation()));
}

torch::Tensor Padded(const torch::Tensor& values, const NestedStructure& structure, const torch::Scalar& padding) {
  std::vector<int64_t> flat = {Slots(structure)};
  std::vector<int64_t> physical = {structure.batch_size()};
  for (const int64_t d : structure.varying_dims()) physical.push_back(structure.max_sizes()[static_cast<size_t>(d)]);
  const auto tail =
      structure.batch_size() == 0 ? values.sizes().slice(1) : torch::IntArrayRef(structure.static_sizes());
  flat.insert(flat.end(), tail.begin(), tail.end());
  physical.insert(physical.end(), tail.begin(), tail.end());
  torch::Tensor padded;
  if (flat[0] == structure.rows()) {
    padded = values;  // nothing to fill
  } else {
    padded = torch::full(flat, padding, values.options().requires_grad(false));
    padded = padded.index_copy(0, structure.PaddedRows(values.device()), values);
  }
  padded = padded.reshape(physical);
  if (IsIdentity(structure.permutation())) return padded;
  return padded.permute(WithBatch(Inverse(structure.permutation())));
}

torch::Tensor Unpadded(const torch::Tensor& padded, const NestedStructure& structure) {
  torch::Tensor physical = padded;
  for (int64_t d = 0; d < structure.rank(); ++d) {
    const int64_t wanted = structure.max_sizes()[static_cast<size_t>(d)];
    if (physical.size(d + 1) != wanted) physical = physical.narrow(d + 1, 0, wanted);
  }
  if (!IsIdentity(structure.permutation())) physical = physical.permute(WithBatch(structure.permutation()));
  std::vector<int64_t> flat = {Slots(structure)};
  flat.insert(flat.end(), structure.static_sizes().begin(), structure.static_sizes().end());
  physical = physical.reshape(flat);
  if (flat[0] == structure.rows()) return physical;
  return physical.index_select(0, structure.PaddedRows(padded.device()));
}

NestedTensor Repack(const std::vector<torch::Tensor>& elements, const NestedTensor& like) {
  if (elements.empty()) return like;
  auto [values, structure] = PackElements(elements);
  return NestedTensor::FromPacked(std::move(values), std::move(structure), like.view());
}

NestedValue StackOrRepack(const std::vector<torch::Tensor>& elements, const NestedTensor& like) {
  const bool same = std::all_of(elements.begin(), elements.end(),
                                [&](const torch::Tensor& e) { return e.sizes() == elements[0].sizes(); });
  if (elements.empty()) return like.values().reshape({0});
  if (same) return torch::stack(elements);
  return Repack(elements, like);
}

NestedValue DenseIfSame(NestedTensor x) {
  if (!x.structure()->AllSame()) return x;
  return Padded(x.values(), *x.structure(), 0);
}

NestedTensor Packed(const NestedTensor& x, const TensorFn& fn) {
  return x.WithValues(fn(x.values()));
}

NestedTensor OnTail(const NestedTensor& x, int64_t count, const TensorFn& fn) {
  const NestedStructure& structure = *x.structure();
  if (!structure.HasStaticTail(count)) return PerElement(x, fn);
  const torch::Tensor values = fn(x.values());
  const auto kept = static_cast<size_t>(x.values().dim() - count);
  const auto tail = values.sizes().slice(kept);
  if (tail == x.values().sizes().slice(kept)) return x.WithValues(values);
  return NestedTensor::FromPacked(values, structure.WithTail(count, tail), x.view());
}

NestedTensor PerElement(const NestedTensor& x, const TensorFn& fn) {
  std::vector<torch::Tensor> results = x.Unbind();
  for (auto& element : results) element = fn(element);
  return Repack(results, x);
}

NestedTensor FirstNested(const std::vector<NestedValue>& operands) {
  for (const auto& operand : operands) {
    if (operand.is_nested()) return operand.nested();
  }
  TORCH_CHECK_TYPE(false, "at least one operand must be a NestedTensor");
}

std::vector<std::vector<torch::Tensor>> EachElement(const std::vector<NestedValue>& operands, const TensorListFn& fn) {
  const int64_t batch = FirstNested(operands).len();
  std::vector<std::vector<torch::Tensor>> columns;
  for (const auto& operand : operands) {
    if (!operand.is_nested()) {
      columns.emplace_back();
      continue;
    }
    TORCH_CHECK_VALUE(operand.nested().len() == batch,
                      "NestedTensor batch length mismatch between input and other: ", "input=", batch,
                      ", other=", operand.nested().len());
    columns.push_back(operand.nested().Unbind());
  }
  std::vector<std::vector<torch::Tensor>> outputs;
  for (size_t b = 0; b < static_cast<size_t>(batch); ++b) {
    std::vector<torch::Tensor> arguments;
    for (size_t i = 0; i < operands.size(); ++i) {
      arguments.push_back(operands[i].is_nested() ? columns[i][b] : operands[i].dense());
    }
    const std::vector<torch::Tensor> results = fn(arguments);
    outputs.resize(results.size());
    for (size_t i = 0; i < results.size(); ++i) outputs[i].push_back(results[i]);
  }
  return outputs;
}

NestedTensor PerElement(const std::vector<NestedValue>& operands, const TensorsFn& fn) {
  const auto outputs = EachElement(
      operands, [&](const std::vector<torch::Tensor>& arguments) { return std::vector<torch::Tensor>{fn(arguments)}; });
  const NestedTensor like = FirstNested(operands);
  return outputs.empty() ? like : Repack(outputs[0], like);
}

std::optional<torch::Tensor> AlignDense(const NestedTensor& x, const torch::Tensor& dense) {
  const NestedStructure& structure = *x.structure();
  if (dense.dim() == 0) return dense;
  if (dense.dim() <= structure.rank()) {
    std::vector<int64_t> sizes(static_cast<size_t>(structure.rank() - dense.dim()), 1);
    sizes.insert(sizes.end(), dense.sizes().begin(), dense.sizes().end());
    bool fits = true;
    for (int64_t d = 0; d < structure.rank() && fits; ++d) {
      const int64_t size = sizes[static_cast<size_t>(d)];
      fits = size == 1 || (structure.IsStatic(d) && size == structure.max_sizes()[static_cast<size_t>(d)]) ||
             (structure.AllSame() && size == structure.max_sizes()[static_cast<size_t>(d)]);
    }
    if (!fits) return std::nullopt;
    const torch::Tensor element = dense.reshape(sizes).permute(structure.permutation());
    const auto statics = static_cast<int64_t>(structure.static_dims().size());
    const bool plain = std::all_of(structure.varying_dims().begin(), structure.varying_dims().end(),
                                   [&](int64_t d) { return sizes[static_cast<size_t>(d)] == 1; });
    if (plain) {
      std::vector<int64_t> packed = {1};
      for (int64_t i = 0; i < statics; ++i) packed.push_back(element.size(structure.rank() - statics + i));
      return element.reshape(packed);
    }
    return AlignDense(x, dense.reshape(sizes).unsqueeze(x.batch_dim()));  // all elements have one shape
  }
  if (dense.dim() != x.dim()) return std::nullopt;
  const std::vector<int64_t> wanted = x.shape();
  for (size_t d = 0; d < wanted.size(); ++d) {
    const int64_t size = dense.size(static_cast<int64_t>(d));
    if (size != 1 && size != wanted[d]) return std::nullopt;
  }
  torch::Tensor padded = dense.expand(wanted);
  if (x.batch_dim() == 1) padded = padded.transpose(0, 1);
  return Unpadded(padded, structure);
}

NestedTensor Aligned(const std::vector<NestedValue>& operands, const TensorsFn& fn) {
  const NestedTensor first = FirstNested(operands);
  for (const auto& operand : operands) {
    if (operand.is_nested() && !operand.nested().structure()->SameAs(*first.structure())) {
      return PerElement(operands, fn);
    }
  }
  std::vector<torch::Tensor> values;
  for (const auto& operand : operands) {
    if (operand.is_nested()) {
      values.push_back(operand.nested().values());
      continue;
    }
    std::optional<torch::Tensor> aligned = AlignDense(first, operand.dense());
    TORCH_CHECK_VALUE(aligned, "Cannot combine a NestedTensor of shape ", torch::IntArrayRef(first.shape()),
                      " (packed ", first.values().sizes(), ") with a tensor of shape ", operand.dense().sizes());
    values.push_back(*aligned);
  }
  const torch::Tensor result = fn(values);
  if (result.sizes() == first.values().sizes()) return first.WithValues(result);
  // A dense operand was wider than a static dim of size 1: the elements grow by broadcasting.
  return PerElement(operands, fn);
}

bool IsBatchDim(const NestedTensor& x, int64_t dim) {
  return Normalised(x, dim) == x.batch_dim();
}

int64_t ElementDim(const NestedTensor& x, int64_t dim) {
  const int64_t at = Normalised(x, dim);
  TORCH_CHECK_VALUE(at != x.batch_dim(), "Cannot translate the batch dimension for NestedTensor.");
  return at < x.batch_dim() ? at : at - 1;
}

std::vector<int64_t> ElementDims(const NestedTensor& x, torch::IntArrayRef dims) {
  std::vector<int64_t> translated;
  for (const int64_t dim : dims) translated.push_back(ElementDim(x, dim));
  return translated;
}

std::optional<int64_t> PackedDim(const NestedStructure& structure, int64_t element_dim) {
  const auto& dims = structure.static_dims();
  const auto found = std::find(dims.begin(), dims.end(), element_dim);
  if (found == dims.end()) return std::nullopt;
  return 1 + (found - dims.begin());
}

}  // namespace athanor::nested
