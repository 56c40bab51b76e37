#include "athanor/nested/structure.h"

#include <algorithm>
#include <functional>
#include <numeric>

namespace athanor {
namespace {

int64_t Product(torch::IntArrayRef sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

torch::Tensor ToTensor(const std::vector<int64_t>& values) {
  return torch::tensor(values, torch::kInt64);
}

}  // namespace

NestedStructure::Ptr NestedStructure::Make(int64_t batch_size, int64_t rank, std::vector<int64_t> sizes,
                                           const NestedStructure* like) {
  TORCH_CHECK_VALUE(static_cast<int64_t>(sizes.size()) == batch_size * rank, "A batch of ", batch_size,
                    " elements of rank ", rank, " needs ", batch_size * rank, " sizes, got ", sizes.size());
  for (const int64_t size : sizes) TORCH_CHECK_VALUE(size >= 0, "The size of a dim must be >= 0, got ", size);
  if (batch_size == 0) {
    std::vector<int64_t> dims(static_cast<size_t>(rank), 0);
    if (rank > 0) dims[0] = -1;
    return MakeEmpty(std::move(dims));
  }
  std::shared_ptr<NestedStructure> made(new NestedStructure());
  made->batch_size_ = batch_size;
  made->rank_ = rank;
  made->sizes_ = std::move(sizes);
  made->Derive();
  if (like != nullptr && made->HasRowsOf(*like)) made->on_devices_ = like->on_devices_;
  return made;
}

NestedStructure::Ptr NestedStructure::Make(const std::vector<std::vector<int64_t>>& shapes) {
  const size_t rank = shapes.empty() ? 0 : shapes[0].size();
  std::vector<int64_t> sizes;
  sizes.reserve(shapes.size() * rank);
  for (const auto& shape : shapes) {
    TORCH_CHECK_VALUE(shape.size() == rank, "All elements of a NestedTensor must have the same number of dims, got ",
                      rank, " and ", shape.size());
    sizes.insert(sizes.end(), shape.begin(), shape.end());
  }
  return Make(static_cast<int64_t>(shapes.size()), static_cast<int64_t>(rank), std::move(sizes));
}

NestedStructure::Ptr NestedStructure::MakeEmpty(std::vector<int64_t> dims) {
  if (!dims.empty() && std::find(dims.begin(), dims.end(), -1) == dims.end()) dims[0] = -1;
  std::vector<bool> varies;
  for (int64_t& size : dims) {
    TORCH_CHECK_VALUE(size >= -1, "The size of a static dim must be >= 0, got ", size);
    varies.push_back(size == -1);
    size = std::max(size, int64_t{0});
  }
  std::shared_ptr<NestedStructure> made(new NestedStructure());
  made->rank_ = static_cast<int64_t>(dims.size());
  made->max_sizes_ = dims;
  made->DeriveFrom(varies, dims);
  return made;
}

void NestedStructure::Derive() {
  max_sizes_.assign(static_cast<size_t>(rank_), 0);
  std::vector<bool> varies(static_cast<size_t>(rank_), false);
  for (int64_t b = 0; b < batch_size_; ++b) {
    const auto shape = sizes(b);
    for (size_t d = 0; d < shape.size(); ++d) {
      max_sizes_[d] = std::max(max_sizes_[d], shape[d]);
      if (shape[d] != sizes_[d]) varies[d] = true;
    }
  }
  all_same_ = std::find(varies.begin(), varies.end(), true) == varies.end();
  if (all_same_ && rank_ > 0) varies[0] = true;
  DeriveFrom(varies, max_sizes_);
}

void NestedStructure::DeriveFrom(const std::vector<bool>& varies, torch::IntArrayRef dim_sizes) {
  for (int64_t d = 0; d < rank_; ++d) {
    const auto at = static_cast<size_t>(d);
    (varies[at] ? varying_dims_ : static_dims_).push_back(d);
    if (!varies[at]) static_sizes_.push_back(dim_sizes[at]);
  }
  permutation_ = varying_dims_;
  permutation_.insert(permutation_.end(), static_dims_.begin(), static_dims_.end());
  const int64_t row_numel = Product(static_sizes_);
  for (int64_t b = 0; b < batch_size_; ++b) {
    int64_t rows = 1;
    for (const int64_t d : varying_dims_) rows *= sizes(b)[static_cast<size_t>(d)];
    packed_sizes_.push_back(rows);
    first_rows_.push_back(rows_);
    rows_ += rows;
  }
  first_rows_.push_back(rows_);
  numel_ = rows_ * row_numel;
}

std::vector<std::vector<int64_t>> NestedStructure::Shapes() const {
  std::vector<std::vector<int64_t>> shapes;
  for (int64_t b = 0; b < batch_size_; ++b) shapes.push_back(sizes(b).vec());
  return shapes;
}

bool NestedStructure::IsStatic(int64_t dim) const {
  return std::find(static_dims_.begin(), static_dims_.end(), dim) != static_dims_.end();
}

bool NestedStructure::HasStaticTail(int64_t count) const {
  if (count > static_cast<int64_t>(static_dims_.size())) return false;
  return varying_dims_.empty() || varying_dims_.back() < rank_ - count;
}

torch::Tensor NestedStructure::Offsets() const {
  return ToTensor(first_rows_);
}

torch::Tensor NestedStructure::PhysicalShape() const {
  torch::Tensor shape = ToTensor(sizes_).reshape({batch_size_, rank_});
  return rank_ == 0 ? shape : shape.index_select(1, ToTensor(permutation_));
}

std::vector<torch::Tensor> NestedStructure::HierarchicalOffsets() const {
  std::vector<torch::Tensor> levels;
  for (size_t level = 0; level < varying_dims_.size(); ++level) {
    std::vector<int64_t> offsets = {0};
    for (int64_t b = 0; b < batch_size_; ++b) {
      int64_t runs = 1;
      for (size_t above = 0; above < level; ++above) runs *= sizes(b)[static_cast<size_t>(varying_dims_[above])];
      const int64_t length = sizes(b)[static_cast<size_t>(varying_dims_[level])];
      for (int64_t run = 0; run < runs; ++run) offsets.push_back(offsets.back() + length);
    }
    levels.push_back(ToTensor(offsets));
  }
  return levels;
}

std::vector<int64_t> NestedStructure::PaddedSizes() const {
  std::vector<int64_t> sizes = {batch_size_};
  sizes.insert(sizes.end(), max_sizes_.begin(), max_sizes_.end());
  return sizes;
}

bool NestedStructure::SameAs(const NestedStructure& other) const {
  if (this == &other) return true;
  if (batch_size_ != other.batch_size_ || rank_ != other.rank_ || sizes_ != other.sizes_) return false;
  return batch_size_ > 0 || Dims() == other.Dims();
}

std::vector<int64_t> NestedStructure::Dims() const {
  std::vector<int64_t> dims(static_cast<size_t>(rank_), -1);
  for (size_t i = 0; i < static_dims_.size(); ++i) dims[static_cast<size_t>(static_dims_[i])] = static_sizes_[i];
  return dims;
}

bool NestedStructure::HasRowsOf(const NestedStructure& other) const {
  const size_t count = varying_dims_.size();
  if (batch_size_ != other.batch_size_ || count != other.varying_dims_.size()) return false;
  for (int64_t b = 0; b < batch_size_; ++b) {
    for (size_t v = 0; v < count; ++v) {
      const auto here = static_cast<size_t>(varying_dims_[v]), there = static_cast<size_t>(other.varying_dims_[v]);
      if (sizes(b)[here] != other.sizes(b)[there]) return false;
    }
  }
  return true;
}

template <class Compute>
torch::Tensor NestedStructure::Cached(ByDevice* cache, const torch::Device& device, const Compute& compute) const {
  const std::lock_guard<std::mutex> lock(on_devices_->mutex);
  torch::Tensor& entry = (*cache)[{static_cast<int>(device.type()), device.index()}];
  if (!entry.defined()) {
    const c10::InferenceMode normal(false);  // the first caller's mode must not stick to what all others share
    entry = ToTensor(compute()).to(device);
  }
  return entry;
}

std::vector<int64_t> NestedStructure::ComputePaddedRows() const {
  std::vector<int64_t> max_varying;
  for (const int64_t d : varying_dims_) max_varying.push_back(max_sizes_[static_cast<size_t>(d)]);
  const int64_t slots = Product(max_varying);
  std::vector<int64_t> places;
  places.reserve(static_cast<size_t>(rows_));
  std::vector<int64_t> at(varying_dims_.size());
  for (int64_t b = 0; b < batch_size_; ++b) {
    std::fill(at.begin(), at.end(), 0);
    for (int64_t row = 0; row < packed_sizes_[static_cast<size_t>(b)]; ++row) {
      int64_t place = 0;
      for (size_t v = 0; v < at.size(); ++v) place = place * max_varying[v] + at[v];
      places.push_back(b * slots + place);
      for (size_t v = at.size(); v-- > 0;) {  // the next place, last dim fastest
        if (++at[v] < sizes(b)[static_cast<size_t>(varying_dims_[v])]) break;
        at[v] = 0;
      }
    }
  }
  return places;
}

torch::Tensor NestedStructure::PaddedRows(const torch::Device& device) const {
  return Cached(&on_devices_->padded_rows, device, [this] { return ComputePaddedRows(); });
}

torch::Tensor NestedStructure::ElementOfRow(const torch::Device& device) const {
  return Cached(&on_devices_->element_of_row, device, [this] {
    std::vector<int64_t> elements;
    elements.reserve(static_cast<size_t>(rows_));
    for (int64_t b = 0; b < batch_size_; ++b) {
      elements.insert(elements.end(), static_cast<size_t>(packed_sizes_[static_cast<size_t>(b)]), b);
    }
    return elements;
  });
}

torch::Tensor NestedStructure::PackedSizes(const torch::Device& device) const {
  return Cached(&on_devices_->packed_sizes, device, [this] { return packed_sizes_; });
}

torch::Tensor NestedStructure::Offsets(const torch::Device& device) const {
  return Cached(&on_devices_->offsets, device, [this] { return first_rows_; });
}

NestedStructure::Ptr NestedStructure::WithTail(int64_t count, torch::IntArrayRef tail) const {
  TORCH_CHECK_VALUE(HasStaticTail(count), "The last ", count, " dims of the elements are not static");
  const int64_t kept = rank_ - count;
  if (batch_size_ == 0) {
    std::vector<int64_t> dims = Dims();
    dims.resize(static_cast<size_t>(kept));
    dims.insert(dims.end(), tail.begin(), tail.end());
    return MakeEmpty(std::move(dims));
  }
  std::vector<int64_t> sizes_of_all;
  sizes_of_all.reserve(static_cast<size_t>(batch_size_ * (kept + static_cast<int64_t>(tail.size()))));
  for (int64_t b = 0; b < batch_size_; ++b) {
    const auto head = sizes(b).slice(0, static_cast<size_t>(kept));
    sizes_of_all.insert(sizes_of_all.end(), head.begin(), head.end());
    sizes_of_all.insert(sizes_of_all.end(), tail.begin(), tail.end());
  }
  return Make(batch_size_, kept + static_cast<int64_t>(tail.size()), std::move(sizes_of_all), this);
}

NestedStructure::Ptr NestedStructure::WithStaticSizes(torch::IntArrayRef sizes) const {
  TORCH_CHECK_VALUE(sizes.size() == static_dims_.size(), "The elements have ", static_dims_.size(),
                    " static dims, got sizes of ", sizes.size());
  std::vector<int64_t> dims = Dims();
  for (size_t i = 0; i < sizes.size(); ++i) dims[static_cast<size_t>(static_dims_[i])] = sizes[i];
  if (batch_size_ == 0) return MakeEmpty(std::move(dims));
  std::vector<int64_t> sizes_of_all = sizes_;
  for (size_t i = 0; i < sizes_of_all.size(); ++i) {
    const int64_t size = dims[i % dims.size()];
    if (size >= 0) sizes_of_all[i] = size;
  }
  return Make(batch_size_, rank_, std::move(sizes_of_all), this);
}

NestedStructure::Ptr NestedStructure::WithoutElements() const {
  return MakeEmpty(Dims());
}

}  // namespace athanor
