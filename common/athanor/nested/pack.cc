#include "athanor/nested/pack.h"

#include <algorithm>
#include <cmath>

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

// LibTorch has hardly a kernel for 8-bit floats: their bytes are moved instead.
torch::Tensor Bytes(const torch::Tensor& tensor) {
  return c10::isFloat8Type(tensor.scalar_type()) ? tensor.view(torch::kUInt8) : tensor;
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

torch::Tensor OnDevice(const torch::Tensor& operand, const torch::Device& device) {
  if (operand.dim() > 0 || device.is_cpu() || !operand.device().is_cpu()) return operand;
  if (!operand.unsafeGetTensorImpl()->is_wrapped_number()) return operand.to(device);
  torch::Tensor made = torch::full({}, operand.item(), torch::TensorOptions(operand.scalar_type()).device(device));
  made.unsafeGetTensorImpl()->set_wrapped_number(true);
  return made;
}

bool Holds(torch::Dtype dtype, const torch::Scalar& number) {
  if (torch::isComplexType(dtype)) return true;
  if (number.isComplex()) return false;
  return torch::isFloatingType(dtype) || number.toDouble() == std::trunc(number.toDouble());
}

// The part of each element of a dense operand with all dims of the padded view; nullopt when it does not broadcast to
// that. `grow`: it may be wider where every element has size 1.
std::optional<std::vector<torch::Tensor>> PartsOfPadded(const NestedStructure& structure, int64_t batch_dim,
                                                        const torch::Tensor& dense, bool grow) {
  if (structure.rank() == 0 || dense.dim() != structure.rank() + 1) return std::nullopt;
  const torch::Tensor padded = batch_dim == 1 ? dense.transpose(0, 1) : dense;
  if (padded.size(0) != 1 && padded.size(0) != structure.batch_size()) return std::nullopt;
  if (structure.batch_size() == 0) return std::vector<torch::Tensor>();
  for (int64_t d = 0; d < structure.rank(); ++d) {
    const int64_t here = padded.size(d + 1), widest = structure.max_sizes()[static_cast<size_t>(d)];
    const bool grows = grow && widest == 1 && (structure.AllSame() || structure.IsStatic(d));
    if (here != 1 && here != widest && !grows) return std::nullopt;
  }
  std::vector<torch::Tensor> parts;
  for (int64_t b = 0; b < structure.batch_size(); ++b) {
    torch::Tensor part = padded.select(0, padded.size(0) == 1 ? 0 : b);
    for (int64_t d = 0; d < structure.rank(); ++d) {
      const auto at = static_cast<size_t>(d);
      if (part.size(d) == structure.max_sizes()[at]) part = part.narrow(d, 0, structure.sizes(b)[at]);
    }
    parts.push_back(part);
  }
  return parts;
}

void CheckBatch(const NestedTensor& first, const NestedTensor& other) {
  TORCH_CHECK_VALUE(other.len() == first.len(),
                    "NestedTensor batch length mismatch between input and other: ", "input=", first.len(),
                    ", other=", other.len());
}

// What each operand gives for each element: a dense one its part where `parts` has some.
using Parts = std::vector<std::optional<std::vector<torch::Tensor>>>;
std::vector<std::vector<torch::Tensor>> EachOf(const std::vector<NestedValue>& operands, const Parts& parts,
                                               const TensorListFn& fn) {
  const NestedTensor first = FirstNested(operands);
  std::vector<std::vector<torch::Tensor>> columns(operands.size());
  for (size_t i = 0; i < operands.size(); ++i) {
    if (operands[i].is_nested()) CheckBatch(first, operands[i].nested());
    if (operands[i].is_nested()) columns[i] = operands[i].nested().Unbind();
  }
  std::vector<std::vector<torch::Tensor>> outputs;
  for (size_t b = 0; b < static_cast<size_t>(first.len()); ++b) {
    std::vector<torch::Tensor> arguments;
    for (size_t i = 0; i < operands.size(); ++i) {
      const auto& part = operands[i].is_nested() ? columns[i] : parts[i] ? *parts[i] : columns[i];
      arguments.push_back(part.empty() ? operands[i].dense() : part[b]);
    }
    const std::vector<torch::Tensor> results = fn(arguments);
    outputs.resize(results.size());
    for (size_t i = 0; i < results.size(); ++i) outputs[i].push_back(results[i]);
  }
  return outputs;
}

// The shapes that the nested operands' elements broadcast to.
NestedStructure::Ptr JointStructure(const std::vector<NestedValue>& operands) {
  const NestedTensor first = FirstNested(operands);
  NestedStructure::Ptr joint = first.structure();
  for (const auto& operand : operands) {
    if (!operand.is_nested() || operand.nested().structure()->SameAs(*joint)) continue;
    CheckBatch(first, operand.nested());
    if (first.len() == 0) continue;
    std::vector<std::vector<int64_t>> shapes;
    for (int64_t b = 0; b < first.len(); ++b)
      shapes.push_back(at::infer_size(joint->sizes(b), operand.nested().structure()->sizes(b)));
    joint = NestedStructure::Make(shapes);
  }
  return joint;
}

// True when a dense operand of at most an element's rank means the same for every element.
bool BroadcastsToAll(const NestedStructure& structure, const torch::Tensor& dense) {
  if (dense.dim() > structure.rank()) return false;
  for (int64_t i = 1; i <= dense.dim(); ++i) {
    const int64_t d = structure.rank() - i, here = dense.size(-i);
    const int64_t widest = structure.max_sizes()[static_cast<size_t>(d)];
    const bool one_size = structure.AllSame() || structure.IsStatic(d);
    if (here != 1 && !(one_size && (here == widest || widest == 1))) return false;
  }
  return true;
}

[[noreturn]] void RefuseDense(const NestedTensor& x, const torch::Tensor& dense) {
  TORCH_CHECK_VALUE(false, "Cannot combine a NestedTensor of shape ", torch::IntArrayRef(x.shape()), " (packed ",
                    x.values().sizes(), ") with a tensor of shape ", dense.sizes());
}

// Aligned() one element at a time: nested operands of several structures, or elements that grow.
NestedTensor AlignedEach(const std::vector<NestedValue>& operands, const TensorsFn& fn) {
  const NestedTensor first = FirstNested(operands);
  const NestedStructure::Ptr joint = JointStructure(operands);
  Parts parts(operands.size());
  for (size_t i = 0; i < operands.size(); ++i) {
    if (operands[i].is_nested() || BroadcastsToAll(*joint, operands[i].dense())) continue;
    parts[i] = PartsOfPadded(*joint, joint->rank() == 0 ? 0 : first.batch_dim(), operands[i].dense(), true);
    if (!parts[i]) RefuseDense(first, operands[i].dense());
  }
  const auto outputs = EachOf(operands, parts, [&](const std::vector<torch::Tensor>& arguments) {
    return std::vector<torch::Tensor>{fn(arguments)};
  });
  return outputs.empty() ? first : Repack(outputs[0], first);
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
    rows.push_back(Bytes((permuted ? elements[b].permute(structure->permutation()) : elements[b]).reshape(packed)));
  }
  const torch::Tensor values = torch::cat(rows);
  return {c10::isFloat8Type(elements[0].scalar_type()) ? values.view(elements[0].scalar_type()) : values, structure};
}

torch::Tensor UnpackElement(const torch::Tensor& rows, const NestedStructure& structure, int64_t index) {
  std::vector<int64_t> physical;
  for (const int64_t d : structure.permutation()) physical.push_back(structure.sizes(index)[static_cast<size_t>(d)]);
  torch::Tensor element = rows.reshape(physical);
  return IsIdentity(structure.permutation()) ? element : element.permute(Inverse(structure.permutation()));
}

torch::Tensor Padded(const torch::Tensor& values, const NestedStructure& structure, const torch::Scalar& padding) {
  if (const torch::Dtype dtype = values.scalar_type(); c10::isFloat8Type(dtype)) {
    const torch::Scalar byte = Bytes(torch::full({}, padding, torch::kFloat32).to(dtype)).item();
    return Padded(Bytes(values), structure, byte).view(dtype);
  }
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
  const torch::Tensor rows = Bytes(physical).index_select(0, structure.PaddedRows(padded.device()));
  return c10::isFloat8Type(padded.scalar_type()) ? rows.view(padded.scalar_type()) : rows;
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
  auto made = structure.WithTail(count, tail);
  if (structure.rank() > 0) return NestedTensor::FromPacked(values, std::move(made), x.view());
  // Elements of no dims became vectors of one length, whose first dim counts as varying.
  return NestedTensor::FromPacked(values.flatten(0, 1), std::move(made), x.view());
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

std::vector<std::vector<torch::Tensor>> EachElement(const std::vector<NestedValue>& given, const TensorListFn& fn,
                                                    DenseOperands as) {
  const NestedTensor first = FirstNested(given);
  std::vector<NestedValue> operands = given;
  Parts parts(operands.size());
  for (size_t i = 0; i < operands.size(); ++i) {
    if (operands[i].is_nested()) continue;
    const torch::Tensor dense = operands[i].dense();
    if (IsNumber(operands[i]) && Holds(first.dtype(), dense.item())) operands[i] = dense.to(first.dtype());
    for (size_t n = 0; as == DenseOperands::kPadded && n < operands.size() && !parts[i]; ++n) {
      if (!operands[n].is_nested()) continue;
      const NestedTensor& nested = operands[n].nested();
      parts[i] = PartsOfPadded(*nested.structure(), nested.batch_dim(), dense, false);
    }
  }
  return EachOf(operands, parts, fn);
}

NestedTensor PerElement(const std::vector<NestedValue>& operands, const TensorsFn& fn, DenseOperands dense) {
  const auto outputs = EachElement(
      operands, [&](const std::vector<torch::Tensor>& arguments) { return std::vector<torch::Tensor>{fn(arguments)}; },
      dense);
  const NestedTensor like = FirstNested(operands);
  return outputs.empty() ? like : Repack(outputs[0], like);
}

bool IsNumber(const NestedValue& operand) {
  return !operand.is_nested() && operand.dense().dim() == 0 &&
         operand.dense().unsafeGetTensorImpl()->is_wrapped_number();
}

std::vector<NestedValue> NumbersAlike(std::vector<NestedValue> operands) {
  const torch::Tensor like = FirstNested(operands).values();
  for (auto& operand : operands) {
    if (!IsNumber(operand) || !Holds(like.scalar_type(), operand.dense().item())) continue;
    operand = torch::full({}, operand.dense().item(), torch::TensorOptions(like.scalar_type()).device(like.device()));
  }
  return operands;
}

std::vector<NestedValue> NumbersOnDevice(std::vector<NestedValue> operands) {
  const torch::Device device = FirstNested(operands).device();
  for (auto& operand : operands) {
    if (!operand.is_nested()) operand = OnDevice(operand.dense(), device);
  }
  return operands;
}

std::optional<torch::Tensor> AlignDense(const NestedTensor& x, const torch::Tensor& dense) {
  const NestedStructure& structure = *x.structure();
  if (dense.dim() == 0) return dense;
  if (dense.dim() <= structure.rank()) {
    std::vector<int64_t> sizes(static_cast<size_t>(structure.rank() - dense.dim()), 1);
    sizes.insert(sizes.end(), dense.sizes().begin(), dense.sizes().end());
    bool plain = true;
    for (int64_t d = 0; d < structure.rank(); ++d) {
      const int64_t size = sizes[static_cast<size_t>(d)], own = structure.max_sizes()[static_cast<size_t>(d)];
      const bool is_static = structure.IsStatic(d);
      const bool fits = size == 1 || (is_static && (size == own || own == 1)) || (structure.AllSame() && size == own);
      if (!fits) return std::nullopt;
      plain = plain && (is_static || size == 1);
    }
    if (!plain) return AlignDense(x, dense.reshape(sizes).unsqueeze(x.batch_dim()));  // all elements have one shape
    std::vector<int64_t> packed = {1};
    for (const int64_t d : structure.static_dims()) packed.push_back(sizes[static_cast<size_t>(d)]);
    return dense.reshape(sizes).permute(structure.permutation()).reshape(packed);
  }
  if (dense.dim() != x.dim()) return std::nullopt;
  const torch::Tensor padded = x.batch_dim() == 1 ? dense.transpose(0, 1) : dense;
  std::vector<int64_t> wanted = structure.PaddedSizes(), statics = structure.static_sizes();
  for (size_t d = 0; d < wanted.size(); ++d) {
    const int64_t size = padded.size(static_cast<int64_t>(d));
    if (size == 1 || size == wanted[d]) continue;
    const auto packed = d == 0 ? std::nullopt : PackedDim(structure, static_cast<int64_t>(d) - 1);
    if (wanted[d] != 1 || !packed) return std::nullopt;
    wanted[d] = statics[static_cast<size_t>(*packed) - 1] = size;
  }
  return Unpadded(padded.expand(wanted), *structure.WithStaticSizes(statics));
}

NestedTensor Aligned(const std::vector<NestedValue>& given, const TensorsFn& fn) {
  const NestedTensor first = FirstNested(given);
  // The kernels of two operands take one from the CPU, but no more.
  std::vector<NestedValue> moved;
  if (given.size() > 2 && !first.device().is_cpu()) moved = NumbersOnDevice(given);
  const std::vector<NestedValue>& operands = moved.empty() ? given : moved;
  std::vector<torch::Tensor> values;
  for (const auto& operand : operands) {
    if (operand.is_nested()) {
      if (!operand.nested().structure()->SameAs(*first.structure())) return AlignedEach(operands, fn);
      values.push_back(operand.nested().values());
      continue;
    }
    std::optional<torch::Tensor> aligned = AlignDense(first, operand.dense());
    if (!aligned) return AlignedEach(operands, fn);
    values.push_back(*std::move(aligned));
  }
  const torch::Tensor result = fn(values);
  if (result.sizes() == first.values().sizes()) return first.WithValues(result);
  // A dense operand was wider than a static dim of size 1: the elements grow by broadcasting.
  const bool rows_stay = result.dim() == first.values().dim() && result.size(0) == first.structure()->rows();
  if (!rows_stay) return AlignedEach(operands, fn);
  return NestedTensor::FromPacked(result, first.structure()->WithStaticSizes(result.sizes().slice(1)), first.view());
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
