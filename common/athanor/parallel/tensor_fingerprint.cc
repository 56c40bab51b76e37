#include "athanor/parallel/tensor_fingerprint.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace athanor {
namespace {

constexpr uint64_t kFactor = 0x9e3779b97f4a7c15ull;
constexpr int64_t kBlock = 1 << 18;  // bytes; the blocks do not depend on the number of threads

// A word that differs always changes the result: both operations can be undone.
uint64_t Mixed(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * kFactor;
  return hash ^ (hash >> 32);
}

uint64_t OfBlock(const char* data, int64_t bytes) {
  std::array<uint64_t, 4> lanes = {1, 2, 3, 4};  // independent of each other, so that the multiplications overlap
  int64_t place = 0;
  for (; place + 32 <= bytes; place += 32) {
    std::array<uint64_t, 4> words;
    std::memcpy(words.data(), data + place, sizeof(words));
    for (size_t i = 0; i < lanes.size(); ++i) lanes[i] = Mixed(lanes[i], words[i]);
  }
  uint64_t hash = static_cast<uint64_t>(bytes);
  for (const uint64_t lane : lanes) hash = Mixed(hash, lane);
  for (; place < bytes; place += 8) {
    uint64_t word = 0;
    std::memcpy(&word, data + place, static_cast<size_t>(std::min<int64_t>(8, bytes - place)));
    hash = Mixed(hash, word);
  }
  return hash;
}

uint64_t OfMemory(const char* data, int64_t bytes) {
  if (bytes <= kBlock) return OfBlock(data, bytes);
  const int64_t blocks = (bytes + kBlock - 1) / kBlock;
  std::vector<uint64_t> hashes(static_cast<size_t>(blocks));
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      hashes[static_cast<size_t>(i)] = OfBlock(data + i * kBlock, std::min(kBlock, bytes - i * kBlock));
  });
  uint64_t hash = static_cast<uint64_t>(blocks);
  for (const uint64_t one : hashes) hash = Mixed(hash, one);
  return hash;
}

torch::Tensor SumOfBits(const torch::Tensor& tensor) {
  const torch::Tensor real = tensor.is_complex() ? torch::view_as_real(tensor) : tensor;
  switch (real.element_size()) {
    case 1:
      return real.view(torch::kUInt8).sum(torch::kInt64);
    case 2:
      return real.view(torch::kInt16).sum(torch::kInt64);
    case 4:
      return real.view(torch::kInt32).sum(torch::kInt64);
    default:
      return real.view(torch::kInt64).sum(torch::kInt64);
  }
}

}  // namespace

int64_t FingerprintOf(const std::vector<torch::Tensor>& tensors) {
  const torch::NoGradGuard no_grad;
  uint64_t hash = 0;
  std::vector<torch::Tensor> sums;
  for (const torch::Tensor& tensor : tensors) {
    if (!tensor.defined() || tensor.numel() == 0) continue;
    const torch::Tensor plain = tensor.detach();
    if (!plain.is_cpu()) {
      sums.push_back(SumOfBits(plain));
      continue;
    }
    // In the order of its memory, which is that of its strides: all ranks have the same.
    const torch::Tensor dense = plain.is_non_overlapping_and_dense() ? plain : plain.contiguous();
    hash =
        Mixed(hash, OfMemory(static_cast<const char*>(dense.const_data_ptr()), static_cast<int64_t>(dense.nbytes())));
  }
  if (!sums.empty()) {
    const torch::Tensor host = torch::stack(sums).cpu();
    for (int64_t i = 0; i < host.numel(); ++i)
      hash = Mixed(hash, static_cast<uint64_t>(host.const_data_ptr<int64_t>()[i]));
  }
  return static_cast<int64_t>(hash >> 2) + 1;
}

}  // namespace athanor
