// What one rank puts into a checkpoint and gets back from it.
#pragma once

#include <torch/torch.h>

#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace athanor {

// Ordered by name, so that every rank enumerates alike. Tensors of any dtype, shape and device; names as in PyTorch's
// state_dict.
using TensorMap = std::map<std::string, torch::Tensor>;

// A box of a tensor.
struct TensorPart {
  torch::Tensor values;
  std::vector<int64_t> begin;  // where it begins in the whole tensor, by dimension
};

// What one rank has of a tensor that no rank has whole: any number of parts.
struct ShardedTensor {
  std::vector<int64_t> shape;  // of the whole tensor
  std::vector<TensorPart> parts;
  std::vector<std::string> also;  // other names of the same tensor (tied weights)
};

// `replicated` and `meta` are equal on every rank: their bytes are divided among the ranks' shards (each tensor whole,
// balanced by size) and a restore on any number of ranks gets all of them. `per_rank` and `rank_meta` belong to one
// rank (random states, loader position); a restore on another number of ranks gets none of them
// (`RestoredState::same_world` is false).
struct TrainingState {
  TensorMap replicated;  // "model.<name>", "optim.<param name>.<slot>", "ema.<name>"
  // Parts, which over all ranks are whole. A restore has them in `replicated`, but for those of which it asks for parts
  // (ReadCheckpoint).
  std::map<std::string, ShardedTensor> sharded;
  // How many ranks have the same parts as this one, in the same order, and which of them it is: a part is written once.
  int replicas = 1, replica = 0;
  TensorMap per_rank;   // "rng.cpu", …
  nlohmann::json meta;  // config, train state, schedule, data position of the epoch …
  nlohmann::json rank_meta;
};

struct RestoredState {
  TrainingState state;  // tensors on the CPU
  int64_t step = -1;
  int world_size = 0;                     // that wrote it
  bool same_world = false;                // as now: per_rank and rank_meta are filled
  std::map<std::string, double> metrics;  // of the manifest
};

}  // namespace athanor
