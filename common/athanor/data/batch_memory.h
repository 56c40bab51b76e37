// Memory for batches that is used again once the consumer has let go of the tensor: a loader's threads would otherwise
// get new pages from the system for every batch, and clearing those costs as much as resizing the images.
//
//   auto memory = std::make_shared<BatchMemory>();
//   torch::Tensor batch = memory->Empty({32, 3, 224, 224}, torch::kFloat32);   // CPU, contiguous, no values yet
//
// Tensors may outlive it. What is free is kept up to `limit` bytes. Thread-safe.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>

namespace athanor {

class BatchMemory : public std::enable_shared_from_this<BatchMemory> {
 public:
  explicit BatchMemory(int64_t limit = int64_t{256} << 20) : limit_(limit) {}

  // Throws c10::Error when there is no memory, as torch::empty() does.
  torch::Tensor Empty(torch::IntArrayRef sizes, torch::ScalarType type);

  int64_t free_bytes() const;

 private:
  struct Block {
    c10::DataPtr data;
    int64_t bytes = 0;
  };
  Block Take(int64_t bytes);
  void Give(Block block);

  const int64_t limit_;
  mutable std::mutex mutex_;
  std::list<Block> free_;  // the one that was freed last in front
  int64_t free_bytes_ = 0;
};

}  // namespace athanor
