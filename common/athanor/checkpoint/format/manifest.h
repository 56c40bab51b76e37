// manifest.json: what makes a folder of shards a checkpoint. docs/checkpoint-format.md describes every key. Pure.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/checkpoint/committer.h"
#include "athanor/checkpoint/format/read_plan.h"

namespace athanor {

// 2 is what is written. 1, of earlier versions, is read: its tensors are whole, and only the shards know where.
inline constexpr int kManifestFormat = 2;

// The begin of a shard, which describes it: safetensors' length and JSON.
struct ShardHeader {
  int64_t bytes = 0;
  uint32_t crc32c = 0;
};

struct Manifest {
  int format = kManifestFormat;
  int64_t step = 0;
  int world_size = 1;
  std::vector<ShardInfo> shards;        // by rank, one each
  std::vector<ShardHeader> headers;     // by rank; not in format 1
  StoredTensors tensors;                // replicated ones; not in format 1. The file of a slice is its rank.
  std::vector<StoredTensors> per_rank;  // by rank; not in format 1
  std::map<std::string, int> owners;    // of format 1: replicated tensor -> rank of its shard
  nlohmann::json meta;                  // TrainingState::meta
  std::map<std::string, double> metrics;
  std::string created_at;  // RFC 3339
};

std::string EncodeManifest(const Manifest& manifest);  // in its format
// DATA_LOSS names `where` and the key that is wrong; FAILED_PRECONDITION: a newer format.
absl::StatusOr<Manifest> ParseManifest(const std::string& where, const std::string& text);

}  // namespace athanor
