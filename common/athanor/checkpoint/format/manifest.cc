#include "athanor/checkpoint/format/manifest.h"

#include <cmath>
#include <limits>
#include <set>

#include "absl/strings/str_cat.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/checkpoint/format/stored_tensors.h"

namespace athanor {
namespace {

using nlohmann::ordered_json;
constexpr int kMaxWorld = 65536;

class Reader {
 public:
  explicit Reader(const std::string& where) : where_(where) {}
  absl::Status Bad(const std::string& key, const std::string& what) const {
    return absl::DataLossError(absl::StrCat(where_, ": ", key, ": ", what));
  }
  absl::StatusOr<int64_t> Integer(const nlohmann::json& object, const char* key, int64_t low, int64_t high) const {
    auto it = object.find(key);
    if (it == object.end() || !it->is_number_integer()) return Bad(key, "an integer is missing");
    if (it->is_number_unsigned() && it->get<uint64_t>() > static_cast<uint64_t>(high)) return Bad(key, "out of range");
    const int64_t value = it->get<int64_t>();
    if (value < low || value > high) return Bad(key, absl::StrCat(value, "; allowed: ", low, " to ", high));
    return value;
  }

 private:
  const std::string& where_;
};

absl::StatusOr<ShardInfo> ParseShard(const Reader& reader, const nlohmann::json& entry, int rank) {
  if (!entry.is_object()) return reader.Bad("shards", "holds objects");
  ShardInfo shard;
  ASSIGN_OR_RETURN(const int64_t found, reader.Integer(entry, "rank", 0, kMaxWorld));
  if (found != rank) return reader.Bad("shards", absl::StrCat("rank ", found, " where rank ", rank, " belongs"));
  shard.rank = rank;
  auto file = entry.find("file");
  if (file == entry.end() || !file->is_string() || !IsPlainFileName(file->get<std::string>()))
    return reader.Bad("shards.file", "a plain file name is missing");
  shard.file = file->get<std::string>();
  ASSIGN_OR_RETURN(shard.bytes, reader.Integer(entry, "bytes", 8, std::numeric_limits<int64_t>::max() / 2));
  ASSIGN_OR_RETURN(const int64_t crc, reader.Integer(entry, "crc32c", 0, std::numeric_limits<uint32_t>::max()));
  shard.crc32c = static_cast<uint32_t>(crc);
  return shard;
}

absl::StatusOr<ShardHeader> ParseHeader(const Reader& reader, const nlohmann::json& shard, int64_t shard_bytes) {
  const auto entry = shard.find("header");
  if (entry == shard.end() || !entry->is_object()) return reader.Bad("shards.header", "an object is missing");
  ShardHeader header;
  ASSIGN_OR_RETURN(header.bytes, reader.Integer(*entry, "bytes", 8, shard_bytes));
  ASSIGN_OR_RETURN(const int64_t crc, reader.Integer(*entry, "crc32c", 0, std::numeric_limits<uint32_t>::max()));
  header.crc32c = static_cast<uint32_t>(crc);
  return header;
}

absl::Status ParseShards(const Reader& reader, const nlohmann::json& document, Manifest* manifest) {
  auto shards = document.find("shards");
  if (shards == document.end() || !shards->is_array() || static_cast<int>(shards->size()) != manifest->world_size)
    return reader.Bad("shards", absl::StrCat("needs one entry for each of ", manifest->world_size, " ranks"));
  std::set<std::string> files;
  for (int rank = 0; rank < manifest->world_size; ++rank) {
    const nlohmann::json& entry = (*shards)[static_cast<size_t>(rank)];
    ASSIGN_OR_RETURN(ShardInfo shard, ParseShard(reader, entry, rank));
    if (!files.insert(shard.file).second) return reader.Bad("shards.file", "two ranks have the same");
    if (manifest->format > 1) {
      ASSIGN_OR_RETURN(const ShardHeader header, ParseHeader(reader, entry, shard.bytes));
      manifest->headers.push_back(header);
    }
    manifest->shards.push_back(std::move(shard));
  }
  if (manifest->format == 1) return absl::OkStatus();
  for (const nlohmann::json& entry : *shards) {
    const auto own = entry.find("tensors");
    if (own == entry.end()) return reader.Bad("shards.tensors", "an object is missing");
    absl::StatusOr<StoredTensors> tensors = ParseTensors(*own, *manifest);
    if (!tensors.ok()) return reader.Bad("shards.tensors", std::string(tensors.status().message()));
    manifest->per_rank.push_back(*std::move(tensors));
  }
  return absl::OkStatus();
}

absl::Status ParseOwners(const Reader& reader, const nlohmann::json& tensors, Manifest* manifest) {
  for (const auto& [name, rank] : tensors.items()) {
    if (!rank.is_number_unsigned() || rank.get<uint64_t>() >= static_cast<uint64_t>(manifest->world_size))
      return reader.Bad("tensors", "names a rank that has no shard");
    manifest->owners[name] = rank.get<int>();
  }
  return absl::OkStatus();
}

std::string Text(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

// One entry per line: people look into manifests, and compare them.
std::string Lines(const ordered_json& object, const std::string& indent) {
  std::string text = "{";
  for (const auto& [key, value] : object.items())
    absl::StrAppend(&text, text.size() > 1 ? "," : "", "\n", indent, Text(key), ": ", Text(value));
  return absl::StrCat(text, "\n", indent.substr(1), "}");
}

ordered_json EncodeShards(const Manifest& manifest) {
  ordered_json shards = ordered_json::array();
  for (const ShardInfo& shard : manifest.shards) {
    shards.push_back({{"rank", shard.rank}, {"file", shard.file}, {"bytes", shard.bytes}, {"crc32c", shard.crc32c}});
    if (manifest.format == 1) continue;
    const auto rank = static_cast<size_t>(shard.rank);
    const ShardHeader& header = manifest.headers[rank];
    shards.back()["header"] = {{"bytes", header.bytes}, {"crc32c", header.crc32c}};
    shards.back()["tensors"] = EncodeTensors(manifest.per_rank[rank]);
  }
  return shards;
}

}  // namespace

std::string EncodeManifest(const Manifest& manifest) {
  ordered_json metrics = ordered_json::object();
  for (const auto& [name, value] : manifest.metrics) {
    if (std::isfinite(value)) metrics[name] = value;  // JSON has no NaN
  }
  const ordered_json tensors = manifest.format == 1 ? ordered_json(manifest.owners) : EncodeTensors(manifest.tensors);
  const ordered_json begin = {
      {"format", manifest.format},         {"step", manifest.step}, {"world_size", manifest.world_size},
      {"created_at", manifest.created_at}, {"metrics", metrics},    {"meta", manifest.meta}};
  std::string text = Lines(begin, " ");
  text.resize(text.size() - 2);  // "\n}"
  absl::StrAppend(&text, ",\n \"shards\": ", Text(EncodeShards(manifest)), ",\n \"tensors\": ", Lines(tensors, "  "),
                  "\n}\n");
  return text;
}

absl::StatusOr<Manifest> ParseManifest(const std::string& where, const std::string& text) {
  const Reader reader(where);
  const nlohmann::json document = ParseJsonText(text);
  if (!document.is_object()) return reader.Bad("document", "not a JSON object");
  Manifest manifest;
  ASSIGN_OR_RETURN(const int64_t format, reader.Integer(document, "format", 1, 1 << 20));
  if (format > kManifestFormat) {
    return absl::FailedPreconditionError(
        absl::StrCat(where, " has format ", format, "; this version reads up to ", kManifestFormat));
  }
  manifest.format = static_cast<int>(format);
  ASSIGN_OR_RETURN(manifest.step, reader.Integer(document, "step", 0, std::numeric_limits<int64_t>::max()));
  ASSIGN_OR_RETURN(const int64_t world, reader.Integer(document, "world_size", 1, kMaxWorld));
  manifest.world_size = static_cast<int>(world);
  RETURN_IF_ERROR(ParseShards(reader, document, &manifest));
  auto tensors = document.find("tensors");
  if (tensors == document.end() || !tensors->is_object()) return reader.Bad("tensors", "an object is missing");
  if (manifest.format == 1) {
    RETURN_IF_ERROR(ParseOwners(reader, *tensors, &manifest));
  } else {
    absl::StatusOr<StoredTensors> stored = ParseTensors(*tensors, manifest);
    if (!stored.ok()) return reader.Bad("tensors", std::string(stored.status().message()));
    manifest.tensors = *std::move(stored);
  }
  if (auto metrics = document.find("metrics"); metrics != document.end() && metrics->is_object()) {
    for (const auto& [name, value] : metrics->items()) {
      if (value.is_number()) manifest.metrics[name] = value.get<double>();
    }
  }
  if (auto meta = document.find("meta"); meta != document.end()) manifest.meta = *meta;
  if (auto created = document.find("created_at"); created != document.end() && created->is_string())
    manifest.created_at = created->get<std::string>();
  return manifest;
}

}  // namespace athanor
