#include "athanor/checkpoint/format1_reader.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/crc32c.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/shard_header.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

constexpr int64_t kChunkBytes = 16 << 20;

struct Shard {
  std::string path;
  TensorMap tensors;
  std::map<std::string, std::string> metadata;
};

// The data of a shard follows its header without holes: one pass over the file reads and sums it up.
absl::StatusOr<Shard> ReadShard(const ShardSource& source, const ShardInfo& info) {
  Shard shard;
  shard.path = source.store.Describe(source.folder + info.file);
  const absl::StatusOr<std::unique_ptr<StoreReader>> reader = source.store.Open(source.folder + info.file);
  if (!reader.ok()) return source.Judge(reader.status());
  absl::StatusOr<ShardBegin> begun = ReadShardBegin(**reader, shard.path);
  if (!begun.ok()) return absl::IsDataLoss(begun.status()) ? begun.status() : source.Judge(begun.status());
  ShardBegin& begin = *begun;
  uint32_t crc = begin.place.crc32c;
  for (const TensorSlot& slot : begin.header.slots) {
    torch::Tensor tensor;
    RETURN_IF_ERROR(RunTorch(absl::StrCat("reading ", shard.path),
                             [&] { tensor = torch::empty(slot.shape, torch::TensorOptions().dtype(slot.dtype)); }));
    for (int64_t at = slot.begin; at < slot.end; at += kChunkBytes) {
      const int64_t size = std::min(kChunkBytes, slot.end - at);
      char* const to = static_cast<char*>(tensor.data_ptr()) + (at - slot.begin);
      RETURN_IF_ERROR(source.Judge((*reader)->Read(begin.place.bytes + at, size, to)));
      crc = Crc32c(crc, to, static_cast<size_t>(size));
      if (source.on_bytes) source.on_bytes("reading a checkpoint", size);
    }
    shard.tensors[slot.name] = std::move(tensor);
  }
  if (crc != info.crc32c) {
    return absl::DataLossError(absl::StrFormat("%s: bytes 0 to %d have CRC32C %08x, the manifest says %08x", shard.path,
                                               info.bytes, crc, info.crc32c));
  }
  shard.metadata = std::move(begin.header.metadata);
  return shard;
}

absl::Status TakePerRank(const Shard& shard, RestoredState* restored) {
  for (const auto& [name, tensor] : shard.tensors) {
    if (absl::StartsWith(name, kPerRankPrefix))
      restored->state.per_rank[name.substr(sizeof kPerRankPrefix - 1)] = tensor;
  }
  const auto meta = shard.metadata.find(kRankMetaKey);
  if (meta == shard.metadata.end()) return absl::OkStatus();
  restored->state.rank_meta = ParseJsonText(meta->second);
  if (!restored->state.rank_meta.is_discarded()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(shard.path, ": ", kRankMetaKey, " is not JSON"));
}

}  // namespace

absl::Status ReadFormat1(const ShardSource& source, int rank, RestoredState* restored) {
  for (const ShardInfo& info : source.manifest.shards) {
    ASSIGN_OR_RETURN(const Shard shard, ReadShard(source, info));
    for (const auto& [name, owner] : source.manifest.owners) {
      if (owner != info.rank) continue;
      const auto found = shard.tensors.find(name);
      if (found == shard.tensors.end())
        return absl::DataLossError(absl::StrCat(shard.path, ": the tensor '", name, "' is missing"));
      restored->state.replicated[name] = found->second;
    }
    if (restored->same_world && info.rank == rank) RETURN_IF_ERROR(TakePerRank(shard, restored));
  }
  return absl::OkStatus();
}

}  // namespace athanor
