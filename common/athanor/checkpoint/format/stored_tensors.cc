#include "athanor/checkpoint/format/stored_tensors.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

using nlohmann::json;
constexpr size_t kMaxDims = 64;

absl::Status Bad(const std::string& what) {
  return absl::DataLossError(what);
}

absl::StatusOr<int64_t> Integer(const json& object, const char* key, int64_t high) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_unsigned() || found->get<uint64_t>() > static_cast<uint64_t>(high))
    return Bad(absl::StrCat(key, ": an integer from 0 to ", high, " is missing"));
  return found->get<int64_t>();
}

absl::StatusOr<std::vector<int64_t>> Integers(const json& object, const char* key, int64_t high, size_t most) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array() || found->size() > most)
    return Bad(absl::StrCat(key, ": a list of at most ", most, " integers is missing"));
  std::vector<int64_t> values;
  for (const json& value : *found) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(high))
      return Bad(absl::StrCat(key, ": holds no integers from 0 to ", high));
    values.push_back(value.get<int64_t>());
  }
  return values;
}

// A slice that is the whole tensor says no more about it.
absl::StatusOr<Box> ParseBox(const json& entry, const std::vector<int64_t>& shape) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  Box box = WholeBox(shape);
  if (entry.contains("begin") || entry.contains("extent")) {
    ASSIGN_OR_RETURN(box.begin, Integers(entry, "begin", kMost, kMaxDims));
    ASSIGN_OR_RETURN(box.extent, Integers(entry, "extent", kMost, kMaxDims));
  }
  if (!IsWithin(box, shape)) return Bad("a slice lies outside of the shape");
  return box;
}

absl::StatusOr<StoredSlice> ParseSlice(const json& entry, const std::vector<int64_t>& shape, const Manifest& manifest) {
  if (!entry.is_object()) return Bad("slices: holds objects");
  StoredSlice slice;
  ASSIGN_OR_RETURN(slice.box, ParseBox(entry, shape));
  ASSIGN_OR_RETURN(const int64_t shard, Integer(entry, "shard", manifest.world_size - 1));
  slice.file = static_cast<int>(shard);
  const int64_t size = manifest.shards[static_cast<size_t>(shard)].bytes;
  ASSIGN_OR_RETURN(slice.offset, Integer(entry, "offset", size));
  ASSIGN_OR_RETURN(slice.bytes, Integer(entry, "bytes", size - slice.offset));
  if (slice.offset < manifest.headers[static_cast<size_t>(shard)].bytes) return Bad("a slice lies in a header");
  const auto blocks = static_cast<size_t>((slice.bytes + kChecksumBytes - 1) / kChecksumBytes);
  ASSIGN_OR_RETURN(const std::vector<int64_t> sums,
                   Integers(entry, "crc32c", std::numeric_limits<uint32_t>::max(), blocks));
  if (sums.size() != blocks) return Bad(absl::StrCat("crc32c: needs ", blocks, " numbers"));
  slice.crc32c.assign(sums.begin(), sums.end());
  return slice;
}

absl::StatusOr<StoredTensor> ParseTensor(const std::string& name, const json& entry, const Manifest& manifest) {
  if (!entry.is_object()) return Bad("no object");
  const auto dtype = entry.find("dtype"), slices = entry.find("slices");
  if (dtype == entry.end() || !dtype->is_string()) return Bad("dtype: a text is missing");
  if (slices == entry.end() || !slices->is_array()) return Bad("slices: a list is missing");
  StoredTensor tensor;
  tensor.dtype = dtype->get<std::string>();
  ASSIGN_OR_RETURN(tensor.shape, Integers(entry, "shape", std::numeric_limits<int64_t>::max(), kMaxDims));
  if (!IsWithin(WholeBox(tensor.shape), tensor.shape)) return Bad("shape: its size overflows");
  for (const json& one : *slices) {
    ASSIGN_OR_RETURN(StoredSlice slice, ParseSlice(one, tensor.shape, manifest));
    tensor.slices.push_back(std::move(slice));
  }
  const absl::Status whole = ElementBytes(name, tensor).status();
  return whole.ok() ? absl::StatusOr<StoredTensor>(std::move(tensor)) : Bad(std::string(whole.message()));
}

}  // namespace

nlohmann::ordered_json EncodeTensors(const StoredTensors& tensors) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const auto& [name, tensor] : tensors) {
    nlohmann::ordered_json slices = nlohmann::ordered_json::array();
    for (const StoredSlice& slice : tensor.slices) {
      nlohmann::ordered_json entry = {
          {"shard", slice.file}, {"offset", slice.offset}, {"bytes", slice.bytes}, {"crc32c", slice.crc32c}};
      if (slice.box != WholeBox(tensor.shape)) {
        entry["begin"] = slice.box.begin;
        entry["extent"] = slice.box.extent;
      }
      slices.push_back(std::move(entry));
    }
    object[name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"slices", std::move(slices)}};
  }
  return object;
}

absl::StatusOr<StoredTensors> ParseTensors(const json& object, const Manifest& manifest) {
  if (!object.is_object()) return Bad("an object is missing");
  StoredTensors tensors;
  for (const auto& [name, entry] : object.items()) {
    absl::StatusOr<StoredTensor> tensor = ParseTensor(name, entry, manifest);
    if (!tensor.ok()) return Annotate(tensor.status(), absl::StrCat("'", name, "'"));
    tensors.emplace(name, *std::move(tensor));
  }
  return tensors;
}

}  // namespace athanor
