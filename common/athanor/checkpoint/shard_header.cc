#include "athanor/checkpoint/shard_header.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/crc32c.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

using nlohmann::json;

template <class T>
absl::StatusOr<std::vector<T>> Numbers(const json& entry, const char* key) {
  std::vector<T> numbers;
  const auto found = entry.find(key);
  if (found == entry.end()) return numbers;
  if (!found->is_array()) return absl::DataLossError(absl::StrCat(key, " is no list"));
  for (const json& value : *found) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<T>::max()))
      return absl::DataLossError(absl::StrCat(key, " holds no integers"));
    numbers.push_back(value.get<T>());
  }
  return numbers;
}

absl::StatusOr<ShardTensor> Described(const TensorSlot& slot, const json& slices) {
  const auto entry = slices.find(slot.name);
  if (entry == slices.end() || !entry->is_object()) return absl::DataLossError("is not described");
  ShardTensor tensor;
  tensor.slot = slot;
  ASSIGN_OR_RETURN(tensor.crc32c, Numbers<uint32_t>(*entry, "crc32c"));
  ASSIGN_OR_RETURN(tensor.shape, Numbers<int64_t>(*entry, "shape"));
  ASSIGN_OR_RETURN(tensor.begin, Numbers<int64_t>(*entry, "begin"));
  if (!entry->contains("shape")) {
    tensor.shape = slot.shape;
    tensor.begin.assign(slot.shape.size(), 0);
  }
  if (!IsWithin({tensor.begin, slot.shape}, tensor.shape)) return absl::DataLossError("lies outside of its shape");
  if (const auto part_of = entry->find("part_of"); part_of != entry->end()) {
    if (!part_of->is_string()) return absl::DataLossError("part_of is no name");
    tensor.part_of = part_of->get<std::string>();
  }
  const auto also = entry->find("also");
  if (also == entry->end()) return tensor;
  if (!also->is_array()) return absl::DataLossError("also is no list");
  for (const json& name : *also) {
    if (!name.is_string()) return absl::DataLossError("also holds no names");
    tensor.also.push_back(name.get<std::string>());
  }
  return tensor;
}

absl::Status AddSlice(const std::string& name, const ShardTensor& tensor, const StoredSlice& slice,
                      StoredTensors* tensors) {
  ASSIGN_OR_RETURN(const std::string dtype, SafetensorsDtype(tensor.slot.dtype));
  const auto [found, fresh] = tensors->try_emplace(name, StoredTensor{dtype, tensor.shape, {}});
  if (!fresh && (found->second.dtype != dtype || found->second.shape != tensor.shape))
    return absl::DataLossError("is of another dtype or shape on another rank");
  found->second.slices.push_back(slice);
  return absl::OkStatus();
}

absl::Status AddTensor(const TensorSlot& slot, const json& slices, const ShardInfo& shard, const ShardHeader& header,
                       Manifest* manifest) {
  ASSIGN_OR_RETURN(const ShardTensor tensor, Described(slot, slices));
  const StoredSlice slice{.box = {tensor.begin, slot.shape},
                          .file = shard.rank,
                          .offset = header.bytes + slot.begin,
                          .bytes = slot.end - slot.begin,
                          .crc32c = tensor.crc32c};
  if (static_cast<int64_t>(slice.crc32c.size()) != (slice.bytes + kChecksumBytes - 1) / kChecksumBytes)
    return absl::DataLossError("has not one checksum for each of its blocks");
  if (absl::StartsWith(slot.name, kPerRankPrefix))
    return AddSlice(slot.name.substr(sizeof kPerRankPrefix - 1), tensor, slice, &manifest->per_rank.back());
  const std::string& name = tensor.part_of.empty() ? slot.name : tensor.part_of;
  RETURN_IF_ERROR(AddSlice(name, tensor, slice, &manifest->tensors));
  for (const std::string& other : tensor.also) RETURN_IF_ERROR(AddSlice(other, tensor, slice, &manifest->tensors));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> EncodeShardHeader(const std::vector<ShardTensor>& tensors, const std::string& rank_meta) {
  std::vector<TensorSlot> slots;
  json slices = json::object();
  for (const ShardTensor& tensor : tensors) {
    slots.push_back(tensor.slot);
    json& entry = slices[tensor.slot.name] = {{"crc32c", tensor.crc32c}};
    if (!tensor.also.empty()) entry["also"] = tensor.also;
    if (!tensor.part_of.empty()) entry["part_of"] = tensor.part_of;
    if (!tensor.shape.empty()) {
      entry["shape"] = tensor.shape;
      entry["begin"] = tensor.begin;
    }
  }
  return EncodeHeader(slots, {{"format", "pt"}, {kRankMetaKey, rank_meta}, {kSlicesKey, slices.dump()}});
}

std::vector<uint32_t> BlockChecksums(const void* data, int64_t size) {
  std::vector<uint32_t> sums;
  const auto* bytes = static_cast<const char*>(data);
  for (int64_t at = 0; at < size; at += kChecksumBytes)
    sums.push_back(Crc32c(0, bytes + at, static_cast<size_t>(std::min(kChecksumBytes, size - at))));
  return sums;
}

absl::StatusOr<ShardBegin> ReadShardBegin(const StoreReader& reader, const std::string& path) {
  std::string bytes(static_cast<size_t>(kHeaderLengthBytes), '\0');
  if (reader.size() < kHeaderLengthBytes) return absl::DataLossError(absl::StrCat(path, ": too short for a shard"));
  RETURN_IF_ERROR(reader.Read(0, kHeaderLengthBytes, bytes.data()));
  const uint64_t length = HeaderLength(bytes.data());
  if (length > static_cast<uint64_t>(kMaxHeaderBytes) ||
      length > static_cast<uint64_t>(reader.size() - kHeaderLengthBytes)) {
    return absl::DataLossError(
        absl::StrCat(path, ", offset 0: a header of ", length, " bytes in a file of ", reader.size()));
  }
  bytes.resize(static_cast<size_t>(kHeaderLengthBytes) + length);
  RETURN_IF_ERROR(reader.Read(kHeaderLengthBytes, static_cast<int64_t>(length), bytes.data() + kHeaderLengthBytes));
  ShardBegin begin;
  begin.place = {static_cast<int64_t>(bytes.size()), Crc32c(0, bytes.data(), bytes.size())};
  ASSIGN_OR_RETURN(begin.header, DecodeHeader(path, std::string_view(bytes).substr(kHeaderLengthBytes),
                                              reader.size() - begin.place.bytes));
  return begin;
}

absl::Status AddShard(const ShardInfo& shard, const ShardBegin& begin, Manifest* manifest) {
  manifest->shards.push_back(shard);
  manifest->headers.push_back(begin.place);
  manifest->per_rank.emplace_back();
  const auto text = begin.header.metadata.find(kSlicesKey);
  const json slices = text == begin.header.metadata.end() ? json() : ParseJsonText(text->second);
  if (!slices.is_object()) return absl::DataLossError(absl::StrCat(shard.file, ": has no ", kSlicesKey));
  for (const TensorSlot& slot : begin.header.slots) {
    const absl::Status added = AddTensor(slot, slices, shard, begin.place, manifest);
    if (!added.ok()) return Annotate(added, absl::StrCat(shard.file, ": tensor '", slot.name, "'"));
  }
  return absl::OkStatus();
}

}  // namespace athanor
