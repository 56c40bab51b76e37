// Which samples this rank sees, in which order: a function of (seed, epoch, world size, rank) alone. With `shuffle` the
// order equals that of PyTorch's DistributedSampler with the same seed.
//
//   DistributedSampler sampler({.dataset_size = 1000, .world_size = 4, .rank = 1, .seed = 7});
//   sampler.StartEpoch(3);
//   std::vector<int64_t> first = sampler.Indices(0, 32);
//
// Not thread-safe while StartEpoch() runs; Indices() is a read.
#pragma once

#include <cstdint>
#include <vector>

namespace athanor {

// What makes the ranks' shares equally long when the dataset does not divide.
enum class SamplerPadding {
  kRepeat,  // samples from the start of the order again, as PyTorch does: for training
  kNone,    // index -1: for evaluation, where no sample may count twice
};

struct SamplerOptions {
  int64_t dataset_size = 0;
  int world_size = 1;
  int rank = 0;
  bool shuffle = true;
  bool drop_last = false;  // cut the tail instead of padding
  uint64_t seed = 0;
  SamplerPadding padding = SamplerPadding::kRepeat;
};

class DistributedSampler {
 public:
  explicit DistributedSampler(const SamplerOptions& options);  // starts epoch 0

  // `offset`: the number of samples of this epoch's global order that all ranks together have used already, under any
  // world size; the rest is divided anew. Clamped to [0, dataset_size].
  void StartEpoch(int64_t epoch, int64_t offset = 0);

  int64_t epoch() const { return epoch_; }
  int64_t offset() const { return offset_; }
  // Indices of this rank from the offset to the end of the epoch, padding included; equal on all ranks.
  int64_t size() const { return size_; }
  // Positions [begin, begin + count) of this rank's share, cut at size(). -1 = padding (kNone only).
  std::vector<int64_t> Indices(int64_t begin, int64_t count) const;

  const SamplerOptions& options() const { return options_; }

 private:
  SamplerOptions options_;
  int64_t epoch_ = -1;
  int64_t offset_ = 0;
  int64_t size_ = 0;
  std::vector<int64_t> order_;  // of the whole dataset; empty when not shuffled
};

}  // namespace athanor
