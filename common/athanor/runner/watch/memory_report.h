// Where the memory of a training process is: asked for when it has run out, and the paced return of what is free.
//
//   LOG(ERROR) << MemoryText({{"parameters", BytesOf(parameters)}, {"optimizer", BytesOf(states)}}, device);
//   // process 1.2 GiB (peak 1.3 GiB), cgroup limit 24.0 GiB; parameters 80.0 MiB, optimizer 160.0 MiB
//
// Thread-safe.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace athanor {

// Of the tensors' storages here, each once. Undefined ones are nothing.
int64_t BytesOf(const std::vector<torch::Tensor>& tensors);

// One line: the process, what limits it, the device's allocator (allocated, reserved, peak, of how much), and `parts`
// by size. Never throws.
std::string MemoryText(std::vector<std::pair<std::string, int64_t>> parts, const torch::Device& device);

// Of this process, and what the device's allocator has given out and holds; 0 on the CPU. Waits for nothing.
struct MemoryUse {
  int64_t resident = 0, resident_peak = 0;
  int64_t allocated = 0, allocated_peak = 0, reserved_peak = 0;
};
MemoryUse ReadMemoryUse(const torch::Device& device);

// Freed heap pages to the system, cached blocks to the device. Costs milliseconds.
void ReturnFreedMemory(const torch::Device& device);

}  // namespace athanor
