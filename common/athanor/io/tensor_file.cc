#include "athanor/io/tensor_file.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"
#include "athanor/io/mapped_file.h"
#include "athanor/tensor/torch_status.h"

namespace athanor {
namespace {

struct DtypeName {
  torch::ScalarType dtype;
  const char* name;
};
constexpr DtypeName kDtypes[] = {
    {torch::kDouble, "F64"},
    {torch::kFloat, "F32"},
    {torch::kHalf, "F16"},
    {torch::kBFloat16, "BF16"},
    {torch::kLong, "I64"},
    {torch::kInt, "I32"},
    {torch::kShort, "I16"},
    {torch::kChar, "I8"},
    {torch::kByte, "U8"},
    {torch::kBool, "BOOL"},
    {torch::kFloat8_e4m3fn, "F8_E4M3"},
    {torch::kFloat8_e5m2, "F8_E5M2"},
    {torch::kComplexFloat, "C64"},
};

absl::Status Damaged(const std::string& file, int64_t offset, const std::string& what) {
  return absl::DataLossError(absl::StrCat(file, ", offset ", offset, ": ", what));
}

// Every number of the header is checked before it is used; `data_size` is what follows the header.
absl::StatusOr<TensorSlot> ParseSlot(const std::string& file, const std::string& name, const nlohmann::json& entry,
                                     int64_t data_size) {
  const std::string where = absl::StrCat("tensor '", name.substr(0, 128), "': ");
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") || !entry.contains("data_offsets") ||
      !entry["dtype"].is_string() || !entry["shape"].is_array() || !entry["data_offsets"].is_array() ||
      entry["data_offsets"].size() != 2) {
    return Damaged(file, 8, where + "needs dtype, shape and data_offsets");
  }
  TensorSlot slot;
  slot.name = name;
  const std::string dtype = entry["dtype"].get<std::string>();
  const auto* known =
      std::find_if(std::begin(kDtypes), std::end(kDtypes), [&](const DtypeName& one) { return dtype == one.name; });
  if (known == std::end(kDtypes))
    return Damaged(file, 8, absl::StrCat(where, "unknown dtype '", dtype.substr(0, 32), "'"));
  slot.dtype = known->dtype;
  int64_t bytes = static_cast<int64_t>(torch::elementSize(slot.dtype));
  int64_t extents = bytes;  // those beside a zero count too: LibTorch multiplies them
  if (entry["shape"].size() > 64) return Damaged(file, 8, where + "more than 64 dimensions");
  for (const nlohmann::json& extent : entry["shape"]) {
    if (!extent.is_number_unsigned() || extent.get<uint64_t>() > static_cast<uint64_t>(1) << 62)
      return Damaged(file, 8, where + "a shape holds non-negative integers");
    slot.shape.push_back(extent.get<int64_t>());
    if (__builtin_mul_overflow(extents, std::max<int64_t>(slot.shape.back(), 1), &extents))
      return Damaged(file, 8, where + "its size overflows");
    bytes *= slot.shape.back();
  }
  for (const nlohmann::json& offset : entry["data_offsets"]) {
    if (!offset.is_number_unsigned() || offset.get<uint64_t>() > static_cast<uint64_t>(data_size)) {
      return Damaged(file, 8, absl::StrCat(where, "data_offsets lie outside of the ", data_size, " bytes of data"));
    }
  }
  slot.begin = entry["data_offsets"][0].get<int64_t>();
  slot.end = entry["data_offsets"][1].get<int64_t>();
  if (slot.end < slot.begin || slot.end - slot.begin != bytes) {
    return Damaged(
        file, 8,
        absl::StrCat(where, "dtype and shape need ", bytes, " bytes, data_offsets give ", slot.end - slot.begin));
  }
  return slot;
}

absl::StatusOr<std::vector<TensorSlot>> ParseSlots(const std::string& file, const nlohmann::json& header,
                                                   int64_t data_size, TensorFile& result) {
  if (!header.is_object()) return Damaged(file, 8, "the header is not a JSON object");
  if (header.size() > kMaxTensors) return Damaged(file, 8, absl::StrCat("more than ", kMaxTensors, " tensors"));
  std::vector<TensorSlot> slots;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) return Damaged(file, 8, "__metadata__ is not an object");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) return Damaged(file, 8, "__metadata__ holds strings only");
        result.metadata[key] = value.get<std::string>();
      }
      continue;
    }
    ASSIGN_OR_RETURN(TensorSlot slot, ParseSlot(file, name, entry, data_size));
    slots.push_back(std::move(slot));
  }
  std::sort(slots.begin(), slots.end(), [](const TensorSlot& a, const TensorSlot& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  int64_t covered = 0;
  for (const TensorSlot& slot : slots) {
    if (slot.begin != covered)
      return Damaged(file, 8,
                     absl::StrCat("tensor '", slot.name.substr(0, 128), "' ",
                                  slot.begin < covered ? "overlaps another" : "leaves a hole before it"));
    covered = slot.end;
  }
  if (covered != data_size)
    return Damaged(file, 8, absl::StrCat(data_size - covered, " bytes at the end belong to no tensor"));
  return slots;
}

}  // namespace

absl::StatusOr<std::string> SafetensorsDtype(torch::ScalarType dtype) {
  for (const DtypeName& one : kDtypes) {
    if (one.dtype == dtype) return std::string(one.name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("dtype ", c10::toString(dtype),
                   " cannot be stored; allowed: F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL F8_E4M3 F8_E5M2 C64"));
}

absl::StatusOr<std::string> EncodeHeader(const std::vector<TensorSlot>& slots,
                                         const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  for (const TensorSlot& slot : slots) {
    ASSIGN_OR_RETURN(const std::string dtype, SafetensorsDtype(slot.dtype));
    header[slot.name] = {{"dtype", dtype}, {"shape", slot.shape}, {"data_offsets", {slot.begin, slot.end}}};
  }
  std::string text = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.append((8 - text.size() % 8) % 8, ' ');
  if (static_cast<int64_t>(text.size()) > kMaxHeaderBytes)
    return absl::InvalidArgumentError(absl::StrCat("a header of ", text.size(), " bytes; allowed: ", kMaxHeaderBytes));
  const uint64_t length = text.size();
  std::string encoded(8, '\0');
  for (int i = 0; i < 8; ++i) encoded[i] = static_cast<char>(length >> (8 * i));
  return encoded + text;
}

absl::StatusOr<TensorFile> ParseTensorFile(const std::string& name, const char* bytes, int64_t size) {
  if (size < 8) return Damaged(name, 0, absl::StrCat(size, " bytes are no safetensors file"));
  uint64_t length = 0;
  for (int i = 0; i < 8; ++i) length |= static_cast<uint64_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  if (length > static_cast<uint64_t>(kMaxHeaderBytes) || length > static_cast<uint64_t>(size - 8)) {
    return Damaged(name, 0, absl::StrCat("a header of ", length, " bytes in a file of ", size));
  }
  const auto header_size = static_cast<int64_t>(length);
  const nlohmann::json header = ParseJsonText(std::string_view(bytes + 8, static_cast<size_t>(header_size)));
  if (header.is_discarded()) return Damaged(name, 8, "the header is not JSON");
  TensorFile result;
  ASSIGN_OR_RETURN(const std::vector<TensorSlot> slots, ParseSlots(name, header, size - 8 - header_size, result));
  const char* data = bytes + 8 + header_size;
  RETURN_IF_ERROR(RunTorch(absl::StrCat("reading ", name), [&] {
    for (const TensorSlot& slot : slots) {
      torch::Tensor tensor = torch::empty(slot.shape, torch::TensorOptions().dtype(slot.dtype));
      if (slot.end > slot.begin)
        std::memcpy(tensor.data_ptr(), data + slot.begin, static_cast<size_t>(slot.end - slot.begin));
      result.tensors[slot.name] = std::move(tensor);
    }
  }));
  return result;
}

absl::StatusOr<TensorFile> ReadTensorFile(const std::string& path) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  return ParseTensorFile(path, file.data(), file.size());
}

absl::Status WriteTensorFile(const std::string& path, const std::map<std::string, torch::Tensor>& tensors,
                             const std::map<std::string, std::string>& metadata) {
  std::vector<TensorSlot> slots;
  std::vector<torch::Tensor> sources;
  int64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.defined() || tensor.layout() != torch::kStrided)
      return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' is undefined or not dense"));
    sources.push_back(tensor.detach().cpu().contiguous());
    const auto bytes = static_cast<int64_t>(sources.back().nbytes());
    slots.push_back({name, tensor.scalar_type(), tensor.sizes().vec(), offset, offset + bytes});
    offset += bytes;
  }
  ASSIGN_OR_RETURN(const std::string header, EncodeHeader(slots, metadata));
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  RETURN_IF_ERROR(file.Append(header.data(), header.size()));
  for (const torch::Tensor& source : sources) RETURN_IF_ERROR(file.Append(source.data_ptr(), source.nbytes()));
  return file.Commit();
}

}  // namespace athanor
