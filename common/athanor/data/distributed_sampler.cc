#include "athanor/data/distributed_sampler.h"

#include <torch/torch.h>

#include <algorithm>

namespace athanor {

DistributedSampler::DistributedSampler(const SamplerOptions& options) : options_(options) {
  StartEpoch(0);
}

void DistributedSampler::StartEpoch(int64_t epoch, int64_t offset) {
  if (options_.shuffle && epoch != epoch_) {
    // torch.randperm with a CPU generator of seed + epoch: the order of PyTorch's DistributedSampler.
    at::Generator generator = at::detail::createCPUGenerator(options_.seed + static_cast<uint64_t>(epoch));
    const torch::Tensor order = torch::randperm(options_.dataset_size, generator, torch::kInt64);
    order_.assign(order.data_ptr<int64_t>(), order.data_ptr<int64_t>() + order.numel());
  }
  epoch_ = epoch;
  offset_ = std::clamp<int64_t>(offset, 0, options_.dataset_size);
  const int64_t left = options_.dataset_size - offset_;
  size_ = options_.drop_last ? left / options_.world_size : (left + options_.world_size - 1) / options_.world_size;
}

std::vector<int64_t> DistributedSampler::Indices(int64_t begin, int64_t count) const {
  std::vector<int64_t> indices;
  const int64_t end = std::min(begin + count, size_);
  if (begin < end) indices.reserve(static_cast<size_t>(end - begin));
  for (int64_t i = begin; i < end; ++i) {
    int64_t place = offset_ + options_.rank + i * options_.world_size;
    if (place >= options_.dataset_size) {
      if (options_.padding == SamplerPadding::kNone) {
        indices.push_back(-1);
        continue;
      }
      place = (place - options_.dataset_size) % options_.dataset_size;
    }
    indices.push_back(order_.empty() ? place : order_[static_cast<size_t>(place)]);
  }
  return indices;
}

}  // namespace athanor
