#include "athanor/data/batch_memory.h"

#include <algorithm>
#include <utility>

namespace athanor {

BatchMemory::Block BatchMemory::Take(int64_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    const auto fits = [&](const Block& block) { return block.bytes >= bytes && block.bytes / 2 <= bytes; };
    const auto found = std::find_if(free_.begin(), free_.end(), fits);
    if (found != free_.end()) {
      Block block = std::move(*found);
      free_.erase(found);
      free_bytes_ -= block.bytes;
      return block;
    }
  }
  return {c10::GetAllocator(c10::kCPU)->allocate(static_cast<size_t>(bytes)), bytes};
}

void BatchMemory::Give(Block block) {
  std::list<Block> dropped;  // freed without the lock
  const std::lock_guard lock(mutex_);
  free_bytes_ += block.bytes;
  free_.push_front(std::move(block));
  while (free_bytes_ > limit_) {
    free_bytes_ -= free_.back().bytes;
    dropped.splice(dropped.begin(), free_, std::prev(free_.end()));
  }
}

torch::Tensor BatchMemory::Empty(torch::IntArrayRef sizes, torch::ScalarType type) {
  const auto bytes = static_cast<int64_t>(c10::elementSize(type)) * c10::multiply_integers(sizes);
  auto block = std::make_shared<Block>(Take(bytes));
  void* data = block->data.get();
  const auto give = [memory = shared_from_this(), block](void*) { memory->Give(std::move(*block)); };
  return torch::from_blob(data, sizes, give, torch::TensorOptions(type));
}

int64_t BatchMemory::free_bytes() const {
  const std::lock_guard lock(mutex_);
  return free_bytes_;
}

}  // namespace athanor
