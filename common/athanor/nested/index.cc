#include "athanor/nested/index.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <string_view>

#include "athanor/nested/pack.h"

namespace athanor {
namespace {

using torch::indexing::Slice;
using torch::indexing::TensorIndex;
using Items = std::vector<NestedIndex>;

int64_t Position(int64_t position, int64_t batch) {
  const int64_t at = position < 0 ? position + batch : position;
  TORCH_CHECK_INDEX(at >= 0 && at < batch, "index ", position, " is out of range for a batch of ", batch);
  return at;
}

std::vector<int64_t> SlicePositions(const Slice& slice, int64_t batch) {
  const int64_t step = slice.step().expect_int();
  TORCH_CHECK_VALUE(step != 0, "slice step cannot be zero");
  // c10's slice puts INDEX_MIN and INDEX_MAX where an end is absent.
  const auto clamp = [&](int64_t at, int64_t low, int64_t high) {
    if (at < 0 && at != torch::indexing::INDEX_MIN) at += batch;
    return std::clamp(at, low, high);
  };
  std::vector<int64_t> positions;
  if (step > 0) {
    const int64_t stop = clamp(slice.stop().expect_int(), 0, batch);
    for (int64_t i = clamp(slice.start().expect_int(), 0, batch); i < stop; i += step) positions.push_back(i);
  } else {
    const int64_t stop = clamp(slice.stop().expect_int(), -1, batch - 1);
    for (int64_t i = clamp(slice.start().expect_int(), -1, batch - 1); i > stop; i += step) positions.push_back(i);
  }
  return positions;
}

std::vector<int64_t> FlagPositions(const std::vector<bool>& flags, int64_t batch) {
  TORCH_CHECK_INDEX(static_cast<int64_t>(flags.size()) == batch, "Boolean index has length ", flags.size(),
                    " but batch size is ", batch);
  std::vector<int64_t> positions;
  for (size_t i = 0; i < flags.size(); ++i) {
    if (flags[i]) positions.push_back(static_cast<int64_t>(i));
  }
  return positions;
}

std::vector<int64_t> TensorPositions(const torch::Tensor& tensor, int64_t batch) {
  TORCH_CHECK_INDEX(tensor.dim() == 1, "A tensor that selects from the batch must have one dim, got ", tensor.dim());
  TORCH_CHECK_INDEX(!torch::isFloatingType(tensor.scalar_type()), "An index tensor must be of integers or bool, got ",
                    tensor.dtype());
  const torch::Tensor host = tensor.to(torch::kCPU, torch::kInt64).contiguous();
  const std::vector<int64_t> entries(host.data_ptr<int64_t>(), host.data_ptr<int64_t>() + host.numel());
  if (tensor.scalar_type() != torch::kBool) return entries;
  return FlagPositions(std::vector<bool>(entries.begin(), entries.end()), batch);
}

// The part of the batch that an item selects; nullopt for items that do not.
std::optional<std::vector<int64_t>> BatchPositions(const NestedIndex& index, int64_t batch) {
  const auto& item = index.item();
  if (const auto* slice = std::get_if<Slice>(&item)) return SlicePositions(*slice, batch);
  if (const auto* list = std::get_if<NestedIndex::Positions>(&item)) return *list;
  if (const auto* flags = std::get_if<NestedIndex::Flags>(&item)) return FlagPositions(*flags, batch);
  if (const auto* tensor = std::get_if<torch::Tensor>(&item)) return TensorPositions(*tensor, batch);
  return std::nullopt;
}

// ATen's own slices refuse negative steps; an index of positions does not.
TensorIndex ForTensor(const NestedIndex& index, int64_t size) {
  const auto& item = index.item();
  if (const auto* position = std::get_if<int64_t>(&item)) return TensorIndex(*position);
  if (const auto* slice = std::get_if<Slice>(&item)) {
    TORCH_CHECK_VALUE(slice->step().expect_int() > 0 || size >= 0, "step must be greater than zero");
    return TensorIndex(*slice);
  }
  if (std::holds_alternative<NestedIndex::Ellipsis>(item)) return TensorIndex("...");
  if (std::holds_alternative<NestedIndex::NewDim>(item)) return TensorIndex(at::indexing::None);
  if (const auto* list = std::get_if<NestedIndex::Positions>(&item)) return TensorIndex(torch::tensor(*list));
  if (const auto* flags = std::get_if<NestedIndex::Flags>(&item)) {
    const std::vector<int64_t> as_integers(flags->begin(), flags->end());
    return TensorIndex(torch::tensor(as_integers, torch::kInt64).to(torch::kBool));
  }
  if (const auto* tensor = std::get_if<torch::Tensor>(&item)) return TensorIndex(*tensor);
  TORCH_CHECK_TYPE(false, "a NestedTensor can only be the whole index");
}

std::vector<TensorIndex> Rest(const Items& index) {
  std::vector<TensorIndex> rest;
  for (size_t i = 1; i < index.size(); ++i) rest.push_back(ForTensor(index[i], -1));
  return rest;
}

// Ellipsis first means the whole batch, and the dims in between if other items follow. A tensor of one integer is that
// position.
Items Expanded(const Items& index) {
  const auto* first = index.empty() ? nullptr : std::get_if<torch::Tensor>(&index[0].item());
  if (first != nullptr && first->dim() == 0 && c10::isIntegralType(first->scalar_type(), /*includeBool=*/false)) {
    Items with_position = index;
    with_position[0] = NestedIndex(first->item<int64_t>());
    return with_position;
  }
  if (index.empty() || !std::holds_alternative<NestedIndex::Ellipsis>(index[0].item())) return index;
  Items expanded = {NestedIndex(Slice())};
  expanded.insert(expanded.end(), index.begin() + (index.size() == 1 ? 1 : 0), index.end());
  return expanded;
}

// A mask of the full shape, packed like x; nullopt when the index is none.
std::optional<NestedTensor> FullMask(const NestedTensor& x, const Items& index) {
  if (index.size() != 1) return std::nullopt;
  const auto& item = index[0].item();
  if (const auto* mask = std::get_if<NestedTensor>(&item)) {
    TORCH_CHECK_INDEX(mask->dtype() == torch::kBool, "A NestedTensor that selects entries must be bool, got ",
                      mask->values().dtype());
    TORCH_CHECK_INDEX(mask->len() == x.len(), "The mask has ", mask->len(), " elements, the tensor ", x.len());
    return *mask;
  }
  const auto* dense = std::get_if<torch::Tensor>(&item);
  const bool full = dense != nullptr && dense->scalar_type() == torch::kBool && x.dim() > 1 &&
                    dense->sizes() == torch::IntArrayRef(x.shape());
  return full ? std::optional<NestedTensor>(x.NestedLike(*dense)) : std::nullopt;
}

// Values for `count` elements: one each.
std::vector<torch::Tensor> ValuesFor(const NestedTensor& x, size_t count, const NestedValue& value) {
  std::vector<torch::Tensor> values;
  if (value.is_nested()) {
    values = value.nested().Unbind();
  } else if (value.dense().dim() == x.dim()) {
    values = value.dense().unbind(0);
  } else if (count == 1 && value.dense().dim() == x.dim() - 1) {
    values = {value.dense()};
  } else {
    TORCH_CHECK_VALUE(false, "Assigning to several elements needs one value for each, got one tensor of ",
                      value.dense().dim(), " dims");
  }
  TORCH_CHECK_VALUE(values.size() == count, "Cannot assign ", values.size(), " values to ", count, " elements");
  return values;
}

}  // namespace

NestedIndex::NestedIndex(const char* dots) : item_(Ellipsis{}) {
  TORCH_CHECK_INDEX(std::string_view(dots) == "...", "The only text that is an index is \"...\", got \"", dots, "\"");
}

namespace nested {

NestedTensor Select(const NestedTensor& x, const std::vector<int64_t>& positions) {
  if (positions.empty())
    return NestedTensor::FromPacked(x.values().narrow(0, 0, 0), x.structure()->WithoutElements(), x.view());
  std::vector<torch::Tensor> elements;
  for (const int64_t position : positions) elements.push_back(x.Element(Position(position, x.len())));
  return Repack(elements, x);
}

}  // namespace nested

NestedValue NestedTensor::Index(const std::vector<NestedIndex>& given) const {
  const Items index = Expanded(given);
  if (index.empty()) return *this;
  if (const auto mask = FullMask(*this, index)) {
    return nested::PerElement({*this, *mask}, [](const std::vector<torch::Tensor>& t) { return t[0].index({t[1]}); });
  }
  const std::vector<TensorIndex> rest = Rest(index);
  if (const auto* position = std::get_if<int64_t>(&index[0].item())) {
    const torch::Tensor element = Element(Position(*position, len()));
    return rest.empty() ? element : element.index(rest);
  }
  if (const auto* dense = std::get_if<torch::Tensor>(&index[0].item()); dense != nullptr && !rest.empty()) {
    std::vector<TensorIndex> all = {TensorIndex(*dense)};
    all.insert(all.end(), rest.begin(), rest.end());
    return tensor().index(all);
  }
  const auto positions = BatchPositions(index[0], len());
  TORCH_CHECK_TYPE(positions, "Unsupported first index of a NestedTensor: it selects from the batch");
  const NestedTensor selected = nested::Select(*this, *positions);
  if (rest.empty()) return selected;
  return nested::PerElement(selected, [&](const torch::Tensor& element) { return element.index(rest); });
}

void NestedTensor::Assign(const std::vector<NestedIndex>& given, const NestedValue& value) {
  const Items index = Expanded(given);
  TORCH_CHECK_TYPE(!index.empty(), "Assigning needs an index");
  if (const auto mask = FullMask(*this, index)) {
    *this = nested::Aligned({*this, *mask, value}, [](const std::vector<torch::Tensor>& t) {
      return torch::where(t[1], t[2].to(t[0].scalar_type()), t[0]);
    });
    return;
  }
  const std::vector<TensorIndex> rest = Rest(index);
  const auto* position = std::get_if<int64_t>(&index[0].item());
  std::vector<int64_t> positions;
  if (position != nullptr) {
    positions = {Position(*position, len())};
  } else {
    const auto selected = BatchPositions(index[0], len());
    TORCH_CHECK_TYPE(selected, "Unsupported first index of a NestedTensor: it selects from the batch");
    for (const int64_t at : *selected) positions.push_back(Position(at, len()));
  }
  std::vector<torch::Tensor> values;
  if (position != nullptr && !value.is_nested()) {
    values = {value.dense()};
  } else if (value.is_nested() || rest.empty()) {
    values = ValuesFor(*this, positions.size(), value);
  } else {
    values.assign(positions.size(), value.dense());
  }
  std::vector<torch::Tensor> elements = Unbind();
  for (size_t i = 0; i < positions.size(); ++i) {
    torch::Tensor& element = elements[static_cast<size_t>(positions[i])];
    const torch::Tensor replacement = values[i].to(values_.options());
    if (rest.empty()) {
      TORCH_CHECK_VALUE(replacement.dim() == structure_->rank(), "Assigned tensor ndim must match existing ndim ",
                        structure_->rank(), ", but got ", replacement.dim());
      element = replacement;
    } else {
      element = element.clone();
      element.index_put_(rest, replacement);
    }
  }
  auto [packed, structure] = nested::PackElements(elements);
  TORCH_CHECK_VALUE(structure->permutation() == structure_->permutation(),
                    "The assigned sizes change which dims vary, and with them the order of the packed dims");
  values_ = std::move(packed);
  structure_ = std::move(structure);
  ForgetViews();
}

}  // namespace athanor
