#include "athanor/parallel/strategies/flat_unit.h"

#include <algorithm>
#include <utility>

namespace athanor {
namespace {

constexpr int64_t kAlignment = 64;  // bytes

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

c10::Storage EmptyStorage(const torch::Tensor& like) {
  return c10::Storage(c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), 0,
                                                            c10::DataPtr(nullptr, like.device()),
                                                            c10::GetAllocator(like.device().type()), false));
}

}  // namespace

FlatUnit::FlatUnit(std::string name, const std::vector<NamedParameter>& parameters, const FlatUnitOptions& options,
                   ParameterWatch* watch)
    : name_(std::move(name)), options_(options) {
  const torch::NoGradGuard no_gradient;
  const torch::Tensor& first = parameters.front().tensor;
  const int64_t unit = std::max<int64_t>(1, kAlignment / static_cast<int64_t>(first.element_size()));
  for (const NamedParameter& parameter : parameters) {
    Slot slot{parameter.name,           parameter.tensor,
              flat_elements_,           parameter.tensor.sizes().vec(),
              parameter.tensor.numel(), parameter.tensor.requires_grad()};
    flat_elements_ += RoundUp(slot.elements, unit);
    trainable_ += slot.trainable ? 1 : 0;
    slots_.push_back(std::move(slot));
  }
  flat_elements_ = RoundUp(std::max<int64_t>(flat_elements_, 1), unit * options.ranks);
  shard_elements_ = flat_elements_ / options.ranks;
  torch::TensorOptions full = first.detach().options().requires_grad(false);
  const torch::TensorOptions shard = full.device(options.shard_device.value_or(first.device()));
  if (options.parameter_type.has_value()) full = full.dtype(*options.parameter_type);
  storage_ = EmptyStorage(first);
  full_ = torch::empty({0}, full).set_(storage_, 0, {0}, {1});
  full_.unsafeGetTensorImpl()->set_sizes_contiguous({flat_elements_});
  if (options.stays) {
    Allocate();
    full_.zero_();
    for (const Slot& slot : slots_)
      full_.narrow(0, slot.offset, slot.elements).copy_(slot.parameter.detach().reshape({-1}));
  }
  const bool within = options.stays && full.dtype() == shard.dtype() && full.device() == shard.device();
  shard_ = within ? full_.narrow(0, options.rank * shard_elements_, shard_elements_)
                  : torch::zeros({shard_elements_}, shard);
  if (!within) {
    for (const Slot& slot : slots_) {
      const Overlap overlap = OverlapOf(slot);
      if (overlap.elements == 0) continue;
      shard_.narrow(0, overlap.in_shard, overlap.elements)
          .copy_(slot.parameter.detach().reshape({-1}).narrow(0, overlap.in_parameter, overlap.elements));
    }
  }
  Place(full, watch);
}

// The parameters into the buffer.
void FlatUnit::Place(const torch::TensorOptions& options, ParameterWatch* watch) {
  for (const Slot& slot : slots_) {
    slot.parameter.set_data(options_.stays ? full_.narrow(0, slot.offset, slot.elements).view(slot.shape)
                                           : MarkedView(storage_, slot.offset, slot.shape, options));
  }
  if (!options_.stays) watched_ = std::make_unique<WatchedStorage>(storage_, watch);
}

FlatUnit::Overlap FlatUnit::OverlapOf(const Slot& slot) const {
  const int64_t shard_begin = options_.rank * shard_elements_;
  const int64_t begin = std::max(slot.offset, shard_begin);
  const int64_t end = std::min(slot.offset + slot.elements, shard_begin + shard_elements_);
  if (begin >= end) return {};
  return {begin - shard_begin, begin - slot.offset, end - begin};
}

void FlatUnit::Allocate() {
  const size_t bytes = static_cast<size_t>(flat_elements_) * full_.element_size();
  storage_.set_data_ptr_noswap(c10::GetAllocator(full_.device().type())->allocate(bytes));
  storage_.set_nbytes(bytes);
  present_ = true;
}

void FlatUnit::Free() {
  if (!present_ || options_.stays) return;
  storage_.set_data_ptr_noswap(c10::DataPtr(nullptr, full_.device()));
  // An operator that slips through then fails cleanly instead of reading nothing's memory.
  storage_.set_nbytes(0);
  present_ = false;
}

}  // namespace athanor
