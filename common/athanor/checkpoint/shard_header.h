// The begin of a shard: safetensors' header, whose metadata say what a manifest has to know about the shard's tensors.
// Internal to the module.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/checkpoint/format/manifest.h"
#include "athanor/checkpoint/store/checkpoint_store.h"
#include "athanor/io/tensor_header.h"

namespace athanor {

inline constexpr char kPerRankPrefix[] = "rank.";
inline constexpr char kRankMetaKey[] = "athanor.rank_meta";
inline constexpr char kSlicesKey[] = "athanor.slices";

// A tensor in a shard.
struct ShardTensor {
  TensorSlot slot;
  std::string part_of;                // whose part it is where the file has several of one tensor; empty: slot.name
  std::vector<std::string> also;      // other names of the same bytes: tied weights
  std::vector<int64_t> shape, begin;  // of the whole tensor, and where the part begins; empty: it is whole
  std::vector<uint32_t> crc32c;       // by kChecksumBytes
};

// ShardTensor::crc32c of a tensor's bytes.
std::vector<uint32_t> BlockChecksums(const void* data, int64_t size);

// In the data's order. `rank_meta` is JSON.
absl::StatusOr<std::string> EncodeShardHeader(const std::vector<ShardTensor>& tensors, const std::string& rank_meta);

struct ShardBegin {
  ShardHeader place;
  TensorHeader header;
};
// `path` is for messages.
absl::StatusOr<ShardBegin> ReadShardBegin(const StoreReader& reader, const std::string& path);

// Puts a shard's tensors into the manifest, whose shards and headers are those of the ranks before. DATA_LOSS when the
// header does not describe them.
absl::Status AddShard(const ShardInfo& shard, const ShardBegin& begin, Manifest* manifest);

}  // namespace athanor
