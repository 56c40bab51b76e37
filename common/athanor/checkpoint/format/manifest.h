// manifest.json: what makes a folder of shards a checkpoint. docs/checkpoint-format.md describes every key. Pure.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/checkpoint/committer.h"

namespace athanor {

inline constexpr int kManifestFormat = 1;

struct Manifest {
  int64_t step = 0;
  int world_size = 1;
  std::vector<ShardInfo> shards;       // by rank, one each
  std::map<std::string, int> tensors;  // replicated ones: name -> rank of its shard
  nlohmann::json meta;                 // TrainingState::meta
  std::map<std::string, double> metrics;
  std::string created_at;  // RFC 3339
};

std::string EncodeManifest(const Manifest& manifest);
// DATA_LOSS names `where` and the key that is wrong; FAILED_PRECONDITION: a newer format.
absl::StatusOr<Manifest> ParseManifest(const std::string& where, const std::string& text);

}  // namespace athanor
