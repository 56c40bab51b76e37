#include "athanor/nested/ops/shape.h"

#include <algorithm>
#include <numeric>

#include "athanor/nested/index.h"
#include "athanor/nested/pack.h"

namespace athanor::nested {
namespace {

using torch::Tensor;
using Tensors = std::vector<Tensor>;

int64_t Wrapped(int64_t dim, int64_t dims) {
  TORCH_CHECK_INDEX(dim >= -dims && dim < dims, "Dimension out of range (expected to be in range of [", -dims, ", ",
                    dims - 1, "], but got ", dim, ")");
  return dim < 0 ? dim + dims : dim;
}

// Element dims in a new order: on the packed values when the varying dims keep theirs.
NestedTensor PermuteElements(const NestedTensor& x, const std::vector<int64_t>& order) {
  const NestedStructure& old = *x.structure();
  std::vector<int64_t> sizes;
  for (int64_t b = 0; b < old.batch_size(); ++b) {
    for (const int64_t d : order) sizes.push_back(old.sizes(b)[static_cast<size_t>(d)]);
  }
  auto structure = NestedStructure::Make(old.batch_size(), old.rank(), std::move(sizes), &old);
  std::vector<int64_t> varying;
  for (const int64_t d : structure->varying_dims()) varying.push_back(order[static_cast<size_t>(d)]);
  if (varying != old.varying_dims()) return PerElement(x, [&](const Tensor& t) { return t.permute(order); });
  std::vector<int64_t> packed = {0};
  for (const int64_t d : structure->static_dims()) packed.push_back(*PackedDim(old, order[static_cast<size_t>(d)]));
  return NestedTensor::FromPacked(x.values().permute(packed), std::move(structure), x.view());
}

// `values` as the packed form of x's elements with other sizes, which `resize` makes of the old ones.
template <class Resize>
NestedTensor Resized(const NestedTensor& x, const Tensor& values, const Resize& resize) {
  const NestedStructure& old = *x.structure();
  if (old.batch_size() == 0) {
    return NestedTensor::FromPacked(values, NestedStructure::MakeEmpty(resize(old.Dims())), x.view());
  }
  std::vector<int64_t> sizes;
  for (int64_t b = 0; b < old.batch_size(); ++b) {
    const std::vector<int64_t> own = resize(old.sizes(b).vec());
    sizes.insert(sizes.end(), own.begin(), own.end());
  }
  const int64_t rank = static_cast<int64_t>(sizes.size()) / old.batch_size();
  return NestedTensor::FromPacked(values, NestedStructure::Make(old.batch_size(), rank, std::move(sizes), &old),
                                  x.view());
}

bool AllStatic(const NestedTensor& x, const std::vector<int64_t>& dims) {
  return std::all_of(dims.begin(), dims.end(), [&](int64_t dim) { return x.structure()->IsStatic(dim); });
}

std::vector<int64_t> Range(int64_t from, int64_t to) {  // both included
  std::vector<int64_t> dims(static_cast<size_t>(to - from + 1));
  std::iota(dims.begin(), dims.end(), from);
  return dims;
}

// A dim that may be one past the last, behind the batch dim and the dims before it.
int64_t InsertionDim(const NestedTensor& x, int64_t dim, const char* what) {
  const int64_t at = Wrapped(dim, x.dim() + 1);
  TORCH_CHECK_VALUE(at > x.batch_dim(), "Cannot ", what,
                    " the batch dimension or dimensions before it for NestedTensor.");
  return at - 1;
}

int64_t InnerDim(const NestedTensor& x, int64_t dim, const char* what) {
  const int64_t at = Wrapped(dim, x.dim());
  TORCH_CHECK_VALUE(at > x.batch_dim(), "Cannot ", what,
                    " the batch dimension or dimensions before it for NestedTensor.");
  return at - 1;
}

// The reshape target of one element.
std::vector<int64_t> TargetOf(const NestedTensor& x, int64_t element, const std::vector<int64_t>& target) {
  const NestedStructure& structure = *x.structure();
  const auto own = structure.sizes(element);
  const auto numel = std::accumulate(own.begin(), own.end(), int64_t{1}, std::multiplies<>());
  const auto product = [](const std::vector<int64_t>& sizes) {
    return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
  };
  std::vector<int64_t> sizes = target;
  const bool inferred = std::find(target.begin(), target.end(), -1) != target.end();
  if (inferred ? false : product(sizes) == numel) return sizes;
  // Padded maxima stand for this element's own size, each varying dim once, in order.
  size_t next = 0;
  for (int64_t& size : sizes) {
    for (size_t d = next; d < own.size(); ++d) {
      if (structure.IsStatic(static_cast<int64_t>(d)) || structure.max_sizes()[d] != size) continue;
      size = own[d];
      next = d + 1;
      break;
    }
  }
  return sizes;
}

}  // namespace

NestedTensor transpose(const NestedTensor& x, int64_t dim0, int64_t dim1) {
  const int64_t first = std::min(Wrapped(dim0, x.dim()), Wrapped(dim1, x.dim()));
  const int64_t second = std::max(Wrapped(dim0, x.dim()), Wrapped(dim1, x.dim()));
  if (first == second) return x;
  if (first == x.batch_dim() || second == x.batch_dim()) {
    TORCH_CHECK_VALUE(first == 0 && second == 1,
                      "Transposing the batch dimension with other than the first element dim is not supported for "
                      "NestedTensor.");
    NestedView view = x.view();
    view.batch_first = !view.batch_first;
    return x.WithView(view);
  }
  std::vector<int64_t> order(static_cast<size_t>(x.structure()->rank()));
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[static_cast<size_t>(ElementDim(x, first))], order[static_cast<size_t>(ElementDim(x, second))]);
  return PermuteElements(x, order);
}

NestedTensor permute(const NestedTensor& x, const std::vector<int64_t>& dims) {
  TORCH_CHECK_VALUE(static_cast<int64_t>(dims.size()) == x.dim(), "permute needs all ", x.dim(), " dims, got ",
                    dims.size());
  std::vector<int64_t> order;
  std::vector<bool> seen(dims.size(), false);
  for (size_t i = 0; i < dims.size(); ++i) {
    const int64_t dim = Wrapped(dims[i], x.dim());
    TORCH_CHECK_VALUE(!seen[static_cast<size_t>(dim)], "permute: dim ", dim, " appears twice");
    seen[static_cast<size_t>(dim)] = true;
    TORCH_CHECK_VALUE((dim == x.batch_dim()) == (static_cast<int64_t>(i) == x.batch_dim()),
                      "Permuting the batch dimension is not supported for NestedTensor.");
    if (dim != x.batch_dim()) order.push_back(ElementDim(x, dim));
  }
  return PermuteElements(x, order);
}

NestedTensor movedim(const NestedTensor& x, const Dims& source, const Dims& destination) {
  TORCH_CHECK_VALUE(source.dims().size() == destination.dims().size(), "movedim needs as many destinations as sources");
  const auto count = static_cast<size_t>(x.dim());
  std::vector<int64_t> order(count, -1);
  std::vector<bool> moved(count, false);
  for (size_t i = 0; i < source.dims().size(); ++i) {
    const int64_t from = Wrapped(source.dims()[i], x.dim());
    order[static_cast<size_t>(Wrapped(destination.dims()[i], x.dim()))] = from;
    moved[static_cast<size_t>(from)] = true;
  }
  int64_t next = 0;
  for (int64_t& dim : order) {
    if (dim != -1) continue;
    while (moved[static_cast<size_t>(next)]) ++next;
    dim = next++;
  }
  return permute(x, order);
}

NestedTensor T(const NestedTensor& x) {
  std::vector<int64_t> order(static_cast<size_t>(x.structure()->rank()));
  std::iota(order.rbegin(), order.rend(), 0);
  return PermuteElements(x, order);
}

NestedTensor mT(const NestedTensor& x) {
  const int64_t rank = x.structure()->rank();
  TORCH_CHECK(rank >= 2, "mT needs elements of rank 2 or more, got ", rank);
  std::vector<int64_t> order(static_cast<size_t>(rank));
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[order.size() - 1], order[order.size() - 2]);
  return PermuteElements(x, order);
}

NestedTensor unsqueeze(const NestedTensor& x, int64_t dim) {
  const int64_t inner = InsertionDim(x, dim, "unsqueeze");
  const NestedStructure& structure = *x.structure();
  const auto& statics = structure.static_dims();
  // Of elements of one shape, dim 0 counts as varying: a new dim before it would take its place.
  if (structure.rank() == 0 || (structure.AllSame() && inner == 0)) {
    return PerElement(x, [&](const Tensor& t) { return t.unsqueeze(inner); });
  }
  const auto before = std::lower_bound(statics.begin(), statics.end(), inner) - statics.begin();
  return Resized(x, x.values().unsqueeze(1 + before), [&](std::vector<int64_t> sizes) {
    sizes.insert(sizes.begin() + inner, 1);
    return sizes;
  });
}

NestedTensor squeeze(const NestedTensor& x, const Dims& dims) {
  std::vector<int64_t> inner;
  if (dims.given()) {
    for (const int64_t dim : dims.dims()) inner.push_back(InnerDim(x, dim, "squeeze"));
  } else {
    for (int64_t d = 0; d < x.structure()->rank(); ++d) {
      const auto is_one = [&](int64_t b) { return x.structure()->sizes(b)[static_cast<size_t>(d)] == 1; };
      bool all_one = true;
      for (int64_t b = 0; b < x.len(); ++b) all_one = all_one && is_one(b);
      if (all_one) inner.push_back(d);
    }
  }
  // A dim that is 1 in some elements only stays, or their ranks would differ.
  inner.erase(std::remove_if(inner.begin(), inner.end(),
                             [&](int64_t d) { return !x.structure()->AllSame() && !x.structure()->IsStatic(d); }),
              inner.end());
  std::sort(inner.begin(), inner.end());
  if (!AllStatic(x, inner)) return PerElement(x, [&](const Tensor& t) { return t.squeeze(inner); });
  inner.erase(std::remove_if(inner.begin(), inner.end(),
                             [&](int64_t d) { return x.structure()->max_sizes()[static_cast<size_t>(d)] != 1; }),
              inner.end());
  std::vector<int64_t> packed;
  for (const int64_t dim : inner) packed.push_back(*PackedDim(*x.structure(), dim));
  return Resized(x, x.values().squeeze(packed), [&](std::vector<int64_t> sizes) {
    for (size_t i = inner.size(); i-- > 0;) sizes.erase(sizes.begin() + inner[i]);
    return sizes;
  });
}

NestedTensor unflatten(const NestedTensor& x, int64_t dim, const std::vector<int64_t>& sizes) {
  const int64_t inner = InnerDim(x, dim, "unflatten");
  if (AllStatic(x, {inner})) {
    const int64_t at = *PackedDim(*x.structure(), inner);
    const Tensor values = x.values().unflatten(at, sizes);
    const auto made = values.sizes().slice(static_cast<size_t>(at), sizes.size());
    return Resized(x, values, [&](std::vector<int64_t> own) {
      own.erase(own.begin() + inner);
      own.insert(own.begin() + inner, made.begin(), made.end());
      return own;
    });
  }
  return PerElement(x, [&](const Tensor& t) { return t.unflatten(inner, sizes); });
}

NestedValue flatten(const NestedTensor& x, int64_t start_dim, int64_t end_dim) {
  const int64_t start = Wrapped(start_dim, x.dim());
  const int64_t end = Wrapped(end_dim, x.dim());
  if (start <= x.batch_dim() && x.batch_dim() <= end) return x.tensor().flatten(start, end);
  const int64_t from = ElementDim(x, start);
  const int64_t to = ElementDim(x, end);
  TORCH_CHECK_VALUE(from <= to, "flatten: start_dim ", start_dim, " comes after end_dim ", end_dim);
  if (from == to) return x;
  const NestedStructure& structure = *x.structure();
  const auto& varying = structure.varying_dims();
  const auto merged = [&](std::vector<int64_t> sizes) {
    const auto first = sizes.begin() + from, last = sizes.begin() + to + 1;
    const bool varies = std::find(first, last, -1) != last;  // of a batch without elements
    const int64_t size = varies ? -1 : std::accumulate(first, last, int64_t{1}, std::multiplies<>());
    sizes.insert(sizes.erase(first, last), size);
    return sizes;
  };
  if (AllStatic(x, Range(from, to))) {
    return Resized(x, x.values().flatten(*PackedDim(structure, from), *PackedDim(structure, to)), merged);
  }
  // Rows and the static dims behind them: every element's rows become longer.
  const auto count = static_cast<int64_t>(varying.size());
  if (count > 0 && from == 0 && count <= to + 1 && varying == Range(0, count - 1)) {
    return Resized(x, x.values().flatten(0, to + 1 - count), merged);
  }
  return PerElement(x, [&](const Tensor& t) { return t.flatten(from, to); });
}

NestedTensor reshape(const NestedTensor& x, const std::vector<int64_t>& shape) {
  TORCH_CHECK_VALUE(std::count(shape.begin(), shape.end(), -1) <= 1, "only one dimension can be inferred");
  // With the batch entry: it has the batch's size, and the entries after it make up the elements.
  const auto fits = [&](const std::vector<int64_t>& target) {
    for (int64_t b = 0; b < x.len(); ++b) {
      int64_t known = 1;
      bool inferred = false;
      for (const int64_t size : TargetOf(x, b, target)) {
        if (size == -1)
          inferred = true;
        else
          known *= size;
      }
      const auto own = x.structure()->sizes(b);
      const int64_t numel = std::accumulate(own.begin(), own.end(), int64_t{1}, std::multiplies<>());
      if (inferred ? (known == 0 || numel % known != 0) : known != numel) return false;
    }
    return true;
  };
  std::vector<int64_t> target = shape;
  const auto at = static_cast<std::ptrdiff_t>(x.batch_dim());
  if (static_cast<std::ptrdiff_t>(shape.size()) > at && shape[static_cast<size_t>(at)] == x.len()) {
    std::vector<int64_t> without = shape;
    without.erase(without.begin() + at);
    if (static_cast<int64_t>(shape.size()) == x.dim() ? fits(without) : !fits(shape) && fits(without)) target = without;
  }
  TORCH_CHECK(fits(target), "shape ", torch::IntArrayRef(shape), " is invalid for a NestedTensor of shape ",
              torch::IntArrayRef(x.shape()));
  std::vector<Tensor> elements = x.Unbind();
  for (int64_t b = 0; b < x.len(); ++b) {
    auto& element = elements[static_cast<size_t>(b)];
    element = element.reshape(TargetOf(x, b, target));
  }
  return Repack(elements, x);
}

NestedTensor view(const NestedTensor& x, const std::vector<int64_t>& shape) {
  return reshape(x, shape);
}

NestedTensor expand(const NestedTensor& x, const std::vector<int64_t>& sizes) {
  TORCH_CHECK_VALUE(static_cast<int64_t>(sizes.size()) == x.dim(), "expand needs ", x.dim(), " sizes, got ",
                    sizes.size());
  std::vector<int64_t> inner = sizes;
  const int64_t batch = sizes[static_cast<size_t>(x.batch_dim())];
  TORCH_CHECK_VALUE(batch == -1 || batch == x.len(), "expand cannot change the batch size ", x.len(), " to ", batch);
  inner.erase(inner.begin() + x.batch_dim());
  return PerElement(x, [&](const Tensor& t) { return t.expand(inner); });
}

namespace {

// The batches behind one another when all are packed in one way; nullopt when not, or when something does not fit.
std::optional<NestedTensor> JoinedRows(const std::vector<NestedValue>& tensors, const NestedTensor& first) {
  const int64_t rank = first.structure()->rank();
  std::vector<int64_t> sizes;
  for (const auto& tensor : tensors) {
    const Tensor& values = tensor.is_nested() ? tensor.nested().values() : tensor.dense();
    if (values.device() != first.device()) return std::nullopt;
    if ((tensor.is_nested() ? tensor.nested().structure()->rank() : values.dim()) != rank) return std::nullopt;
    if (!tensor.is_nested()) sizes.insert(sizes.end(), values.sizes().begin(), values.sizes().end());
    for (int64_t b = 0; tensor.is_nested() && b < tensor.nested().len(); ++b) {
      const auto own = tensor.nested().structure()->sizes(b);
      sizes.insert(sizes.end(), own.begin(), own.end());
    }
  }
  if (rank == 0 || sizes.empty()) return std::nullopt;
  const auto structure = NestedStructure::Make(static_cast<int64_t>(sizes.size()) / rank, rank, sizes);
  Tensors rows;
  for (const auto& tensor : tensors) {
    if (tensor.is_nested()) {
      if (tensor.nested().len() == 0) continue;
      if (tensor.nested().structure()->varying_dims() != structure->varying_dims()) return std::nullopt;
      rows.push_back(tensor.nested().values());
      continue;
    }
    const auto varying = static_cast<int64_t>(structure->varying_dims().size());
    rows.push_back(tensor.dense().permute(structure->permutation()).flatten(0, varying - 1));
  }
  return NestedTensor::FromPacked(torch::cat(rows), structure, first.view());
}

}  // namespace

NestedTensor cat(const std::vector<NestedValue>& tensors, int64_t dim) {
  const NestedTensor first = FirstNested(tensors);
  for (const auto& tensor : tensors) {
    TORCH_CHECK_VALUE(!tensor.is_nested() || tensor.nested().view() == first.view(),
                      "cat: batch_first, padding_value and mask_value of all NestedTensors must agree");
  }
  if (IsBatchDim(first, dim)) {
    if (const auto packed = JoinedRows(tensors, first)) return *packed;
    Tensors elements;
    for (const auto& tensor : tensors) {
      const Tensors more = tensor.is_nested() ? tensor.nested().Unbind() : Tensors{tensor.dense()};
      elements.insert(elements.end(), more.begin(), more.end());
    }
    if (elements.empty()) return first;  // which knows rank, sizes and dtype
    NestedOptions options;
    static_cast<NestedView&>(options) = first.view();
    return NestedTensor(elements, options);
  }
  const int64_t inner = ElementDim(first, dim);
  std::vector<int64_t> lengths;
  for (const auto& tensor : tensors) lengths.push_back(tensor.nested().len());
  TORCH_CHECK_VALUE(std::adjacent_find(lengths.begin(), lengths.end(), std::not_equal_to<>()) == lengths.end(),
                    "NestedTensor cat along non-batch dim requires the same batch length, but got lengths ",
                    torch::IntArrayRef(lengths));
  return PerElement(tensors, [&](const Tensors& t) { return torch::cat(t, inner); });
}

NestedTensor stack(const std::vector<NestedValue>& tensors, int64_t dim) {
  TORCH_CHECK_NOT_IMPLEMENTED(dim == 0, "stack of NestedTensors only supports dim 0, got ", dim);
  return PerElement(tensors, [](const Tensors& t) { return torch::stack(t); });
}

namespace {

// Parts of every element, regrouped to one NestedTensor a part.
std::vector<NestedTensor> Parts(const NestedTensor& x, const std::function<Tensors(const Tensor&)>& cut) {
  std::vector<Tensors> parts;
  for (const Tensor& element : x.Unbind()) {
    const Tensors cuts = cut(element);
    TORCH_CHECK_VALUE(parts.empty() || parts.size() == cuts.size(),
                      "The elements of the NestedTensor give different numbers of parts, ", parts.size(), " and ",
                      cuts.size());
    parts.resize(cuts.size());
    for (size_t i = 0; i < cuts.size(); ++i) parts[i].push_back(cuts[i]);
  }
  std::vector<NestedTensor> result;
  for (const Tensors& part : parts) result.push_back(Repack(part, x));
  return result;
}

// `count` elements from `begin` on: a view of their rows where these are packed as they would be alone.
NestedTensor BatchRange(const NestedTensor& x, int64_t begin, int64_t count) {
  const NestedStructure& all = *x.structure();
  if (count > 0) {
    std::vector<int64_t> sizes;
    for (int64_t b = begin; b < begin + count; ++b) sizes.insert(sizes.end(), all.sizes(b).begin(), all.sizes(b).end());
    auto structure = NestedStructure::Make(count, all.rank(), std::move(sizes));
    if (structure->varying_dims() == all.varying_dims()) {
      const int64_t row = all.FirstRow(begin);
      return NestedTensor::FromPacked(x.values().narrow(0, row, structure->rows()), std::move(structure), x.view());
    }
  }
  std::vector<int64_t> positions(static_cast<size_t>(count));
  std::iota(positions.begin(), positions.end(), begin);
  return Select(x, positions);
}

std::vector<NestedTensor> BatchParts(const NestedTensor& x, const std::vector<int64_t>& sizes) {
  TORCH_CHECK(std::accumulate(sizes.begin(), sizes.end(), int64_t{0}) == x.len(), "split sizes must sum to the batch ",
              "size ", x.len(), ", got ", torch::IntArrayRef(sizes));
  std::vector<NestedTensor> parts;
  int64_t next = 0;
  for (const int64_t size : sizes) {
    parts.push_back(BatchRange(x, next, size));
    next += size;
  }
  return parts;
}

std::vector<int64_t> EqualSizes(int64_t total, int64_t size) {
  std::vector<int64_t> sizes;
  for (int64_t left = total; left > 0; left -= size) sizes.push_back(std::min(left, size));
  return sizes;
}

}  // namespace

std::vector<NestedTensor> split(const NestedTensor& x, int64_t size, int64_t dim) {
  TORCH_CHECK(size > 0, "split size must be positive, got ", size);
  if (IsBatchDim(x, dim)) return BatchParts(x, EqualSizes(x.len(), size));
  const int64_t inner = ElementDim(x, dim);
  return Parts(x, [&](const Tensor& t) { return t.split(size, inner); });
}

std::vector<NestedTensor> split(const NestedTensor& x, const std::vector<int64_t>& sizes, int64_t dim) {
  for (const int64_t size : sizes) TORCH_CHECK(size >= 0, "split sizes must be >= 0, got ", torch::IntArrayRef(sizes));
  if (IsBatchDim(x, dim)) return BatchParts(x, sizes);
  const int64_t inner = ElementDim(x, dim);
  return Parts(x, [&](const Tensor& t) { return t.split_with_sizes(sizes, inner); });
}

std::vector<NestedTensor> chunk(const NestedTensor& x, int64_t chunks, int64_t dim) {
  TORCH_CHECK(chunks > 0, "chunk needs at least one chunk, got ", chunks);
  if (IsBatchDim(x, dim)) return BatchParts(x, EqualSizes(x.len(), (x.len() + chunks - 1) / chunks));
  const int64_t inner = ElementDim(x, dim);
  return Parts(x, [&](const Tensor& t) { return t.chunk(chunks, inner); });
}

std::vector<Tensor> unbind(const NestedTensor& x, int64_t dim) {
  TORCH_CHECK_NOT_IMPLEMENTED(IsBatchDim(x, dim),
                              "unbind for NestedTensor only supports unbinding along the batch dimension.");
  return x.Unbind();
}

}  // namespace athanor::nested
