#include "athanor/data/npy_reader.h"

#include <zlib.h>

#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/data/inflate.h"
#include "athanor/io/mapped_file.h"

namespace athanor {
namespace {

struct Dtype {
  absl::string_view text;  // as in the header, without the byte order
  torch::ScalarType type;
  size_t bytes;
};

constexpr Dtype kDtypes[] = {
    {"f8", torch::kFloat64, 8},      {"f4", torch::kFloat32, 4},        {"f2", torch::kFloat16, 2},
    {"i8", torch::kInt64, 8},        {"i4", torch::kInt32, 4},          {"i2", torch::kInt16, 2},
    {"i1", torch::kInt8, 1},         {"u1", torch::kUInt8, 1},          {"b1", torch::kBool, 1},
    {"c8", torch::kComplexFloat, 8}, {"c16", torch::kComplexDouble, 16}};

constexpr size_t kMaxDims = 64;  // of LibTorch and NumPy

template <class... Parts>
absl::Status Damaged(const std::string& name, const Parts&... parts) {
  return absl::DataLossError(absl::StrCat(name, ": ", parts...));
}

// The text behind 'key': in the header's Python literal.
absl::StatusOr<absl::string_view> Field(const std::string& name, absl::string_view header, absl::string_view key) {
  const size_t at = header.find(absl::StrCat("'", key, "':"));
  if (at == absl::string_view::npos) return Damaged(name, "the header has no '", key, "'");
  absl::string_view rest = header.substr(at + key.size() + 3);
  return absl::StripLeadingAsciiWhitespace(rest);
}

struct Header {
  std::string dtype;  // with byte order
  bool fortran = false;
  std::vector<int64_t> shape;
};

absl::StatusOr<Header> ParseHeader(const std::string& name, absl::string_view text) {
  Header header;
  ASSIGN_OR_RETURN(absl::string_view descr, Field(name, text, "descr"));
  if (!absl::ConsumePrefix(&descr, "'")) return Damaged(name, "structured arrays are not supported");
  header.dtype = std::string(descr.substr(0, descr.find('\'')));
  ASSIGN_OR_RETURN(const absl::string_view order, Field(name, text, "fortran_order"));
  header.fortran = absl::StartsWith(order, "True");
  ASSIGN_OR_RETURN(absl::string_view shape, Field(name, text, "shape"));
  if (!absl::ConsumePrefix(&shape, "(")) return Damaged(name, "the shape is no tuple");
  for (absl::string_view part : absl::StrSplit(shape.substr(0, shape.find(')')), ',')) {
    part = absl::StripAsciiWhitespace(part);
    if (part.empty()) continue;
    int64_t extent = 0;
    if (!absl::SimpleAtoi(part, &extent) || extent < 0) return Damaged(name, "the shape holds \"", part, "\"");
    header.shape.push_back(extent);
  }
  if (header.shape.size() > kMaxDims)
    return Damaged(name, "found ", header.shape.size(), " dimensions; allowed: ", kMaxDims);
  return header;
}

// Elements of the shape; unset when it overflows. Extents beside a zero count too: LibTorch multiplies them.
std::optional<size_t> ElementCount(const std::vector<int64_t>& shape, size_t bytes) {
  size_t count = 1;
  bool empty = false;
  for (const int64_t extent : shape) {
    empty = empty || extent == 0;
    const size_t factor = extent == 0 ? 1 : static_cast<size_t>(extent);
    if (count > std::numeric_limits<int64_t>::max() / bytes / factor) return std::nullopt;
    count *= factor;
  }
  return empty ? 0 : count;
}

torch::Tensor Shaped(torch::Tensor flat, const Header& header) {
  if (!header.fortran) return flat.reshape(header.shape);
  std::vector<int64_t> reversed(header.shape.rbegin(), header.shape.rend());
  std::vector<int64_t> axes;
  for (size_t i = reversed.size(); i-- > 0;) axes.push_back(static_cast<int64_t>(i));
  return flat.reshape(reversed).permute(axes).contiguous();
}

// u2 and u4: LibTorch's own unsigned types lack most operations.
template <class From>
torch::Tensor Widened(const char* data, size_t count, torch::ScalarType to) {
  torch::Tensor wide = torch::empty({static_cast<int64_t>(count)}, to);
  for (size_t i = 0; i < count; ++i) {
    From value;
    std::memcpy(&value, data + i * sizeof(From), sizeof(From));
    if (to == torch::kInt32) wide.data_ptr<int32_t>()[i] = static_cast<int32_t>(value);
    if (to == torch::kInt64) wide.data_ptr<int64_t>()[i] = static_cast<int64_t>(value);
  }
  return wide;
}

absl::StatusOr<torch::Tensor> Elements(const std::string& name, const Header& header, const char* data, size_t size) {
  const char order = header.dtype.empty() ? '?' : header.dtype[0];
  const absl::string_view kind = absl::string_view(header.dtype).substr(header.dtype.empty() ? 0 : 1);
  const size_t unsigned_bytes = kind == "u2" ? 2 : kind == "u4" ? 4 : 0;
  const Dtype* dtype = nullptr;
  for (const Dtype& candidate : kDtypes) {
    if (candidate.text == kind) dtype = &candidate;
  }
  const size_t bytes = dtype != nullptr ? dtype->bytes : unsigned_bytes;
  if (bytes == 0 || (order != '<' && order != '|' && order != '=') || (order == '|' && bytes > 1)) {
    return Damaged(name, "found dtype \"", header.dtype,
                   "\"; allowed: little-endian f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 b1 c8 c16");
  }
  const std::optional<size_t> count = ElementCount(header.shape, bytes);
  if (!count || *count * bytes != size) {
    return Damaged(name, "found ", size, " bytes of data for shape (", absl::StrJoin(header.shape, ", "), ") of ",
                   header.dtype);
  }
  if (unsigned_bytes == 2) return Shaped(Widened<uint16_t>(data, *count, torch::kInt32), header);
  if (unsigned_bytes == 4) return Shaped(Widened<uint32_t>(data, *count, torch::kInt64), header);
  torch::Tensor flat = torch::empty({static_cast<int64_t>(*count)}, dtype->type);
  if (size > 0) std::memcpy(flat.data_ptr(), data, size);
  return Shaped(std::move(flat), header);
}

template <class T>
T LittleEndian(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

constexpr uint32_t kEndOfDirectory = 0x06054b50, kDirectoryEntry = 0x02014b50, kLocalEntry = 0x04034b50;
constexpr size_t kEndBytes = 22, kDirectoryBytes = 46, kLocalBytes = 30;

struct ZipEntry {
  std::string name;
  uint32_t method = 0, crc = 0, packed = 0, unpacked = 0, offset = 0;
};

absl::StatusOr<std::vector<ZipEntry>> Directory(const std::string& name, const char* bytes, size_t size) {
  if (size < kEndBytes) return Damaged(name, "too short for an archive");
  // The comment behind the end record has at most 64 KiB.
  size_t end = size - kEndBytes;
  const size_t lowest = size > kEndBytes + 65535 ? size - kEndBytes - 65535 : 0;
  while (LittleEndian<uint32_t>(bytes + end) != kEndOfDirectory) {
    if (end == lowest) return Damaged(name, "no archive: its directory is missing");
    --end;
  }
  const uint16_t count = LittleEndian<uint16_t>(bytes + end + 10);
  size_t at = LittleEndian<uint32_t>(bytes + end + 16);
  std::vector<ZipEntry> entries;
  for (uint16_t i = 0; i < count; ++i) {
    if (at > size || size - at < kDirectoryBytes || LittleEndian<uint32_t>(bytes + at) != kDirectoryEntry)
      return Damaged(name, "its directory is damaged at byte ", at);
    const size_t name_size = LittleEndian<uint16_t>(bytes + at + 28);
    const size_t extra = LittleEndian<uint16_t>(bytes + at + 30), comment = LittleEndian<uint16_t>(bytes + at + 32);
    if (size - at < kDirectoryBytes + name_size) return Damaged(name, "its directory is cut");
    ZipEntry entry;
    entry.name.assign(bytes + at + kDirectoryBytes, name_size);
    entry.method = LittleEndian<uint16_t>(bytes + at + 10);
    entry.crc = LittleEndian<uint32_t>(bytes + at + 16);
    entry.packed = LittleEndian<uint32_t>(bytes + at + 20);
    entry.unpacked = LittleEndian<uint32_t>(bytes + at + 24);
    entry.offset = LittleEndian<uint32_t>(bytes + at + 42);
    if (entry.unpacked == UINT32_MAX || entry.offset == UINT32_MAX)
      return Damaged(name, entry.name, ": arrays of 4 GiB and more are not supported; use .npy or safetensors");
    entries.push_back(std::move(entry));
    at += kDirectoryBytes + name_size + extra + comment;
  }
  return entries;
}

absl::StatusOr<std::string> Unpack(const std::string& name, const ZipEntry& entry, const char* bytes, size_t size) {
  const size_t at = entry.offset;
  if (at > size || size - at < kLocalBytes || LittleEndian<uint32_t>(bytes + at) != kLocalEntry)
    return Damaged(name, "no entry at byte ", at);
  const size_t data =
      at + kLocalBytes + LittleEndian<uint16_t>(bytes + at + 26) + LittleEndian<uint16_t>(bytes + at + 28);
  if (data > size || size - data < entry.packed) return Damaged(name, "the entry is cut");
  std::string content;
  if (entry.method == 0) {
    content.assign(bytes + data, entry.packed);
  } else if (entry.method == 8) {
    absl::StatusOr<std::string> unpacked = InflateRaw(bytes + data, entry.packed, entry.unpacked);
    if (!unpacked.ok()) return Annotate(unpacked.status(), name);
    content = *std::move(unpacked);
  } else {
    return Damaged(name, "compression method ", entry.method, "; allowed: stored, deflated");
  }
  const auto crc = crc32(0, reinterpret_cast<const Bytef*>(content.data()), static_cast<uInt>(content.size()));
  if (content.size() != entry.unpacked || static_cast<uint32_t>(crc) != entry.crc)
    return Damaged(name, "the checksum does not fit");
  return content;
}

absl::StatusOr<std::string> EncodeNpy(const torch::Tensor& tensor) {
  for (const Dtype& dtype : kDtypes) {
    if (dtype.type != tensor.scalar_type()) continue;
    const torch::Tensor dense = tensor.detach().cpu().contiguous();
    std::string header =
        absl::StrCat("{'descr': '", dtype.bytes == 1 ? "|" : "<", dtype.text, "', 'fortran_order': False, 'shape': (",
                     absl::StrJoin(dense.sizes(), ", "), dense.dim() == 1 ? ",), }" : "), }");
    header.append(63 - (10 + header.size()) % 64, ' ');
    header += '\n';
    if (header.size() > UINT16_MAX) return absl::InvalidArgumentError("npy: too many dimensions");
    std::string bytes("\x93NUMPY\x01\x00", 8);
    bytes += static_cast<char>(header.size() & 0xff);
    bytes += static_cast<char>(header.size() >> 8);
    bytes += header;
    bytes.append(static_cast<const char*>(dense.data_ptr()), dense.nbytes());
    return bytes;
  }
  return absl::InvalidArgumentError(absl::StrCat("npy: NumPy has no ", c10::toString(tensor.scalar_type())));
}

template <class T>
void Put(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(T));
}

// The fields that a local header and a directory entry share, from "version needed" to the name's length.
void PutZipFields(std::string* out, const std::string& name, const std::string& content) {
  Put<uint16_t>(out, 20);
  Put<uint32_t>(out, 0);           // flags, stored
  Put<uint32_t>(out, 0x00210000);  // 1980-01-01: equal arrays give equal files
  Put<uint32_t>(out, static_cast<uint32_t>(
                         crc32(0, reinterpret_cast<const Bytef*>(content.data()), static_cast<uInt>(content.size()))));
  Put<uint32_t>(out, static_cast<uint32_t>(content.size()));
  Put<uint32_t>(out, static_cast<uint32_t>(content.size()));
  Put<uint16_t>(out, static_cast<uint16_t>(name.size()));
  Put<uint16_t>(out, 0);
}

}  // namespace

absl::StatusOr<torch::Tensor> ParseNpy(const std::string& name, const char* bytes, size_t size) {
  if (size < 10 || std::memcmp(bytes, "\x93NUMPY", 6) != 0) return Damaged(name, "no .npy file");
  const int version = bytes[6];
  if (version < 1 || version > 3) return Damaged(name, "found format version ", version, "; allowed: 1, 2, 3");
  const size_t start = version == 1 ? 10 : 12;
  if (size < start) return Damaged(name, "the header is cut");
  const size_t length = version == 1 ? LittleEndian<uint16_t>(bytes + 8) : LittleEndian<uint32_t>(bytes + 8);
  if (length > size - start) return Damaged(name, "the header is cut");
  ASSIGN_OR_RETURN(const Header header, ParseHeader(name, absl::string_view(bytes + start, length)));
  return Elements(name, header, bytes + start + length, size - start - length);
}

absl::StatusOr<std::map<std::string, torch::Tensor>> ParseNpz(const std::string& name, const char* bytes, size_t size) {
  ASSIGN_OR_RETURN(const std::vector<ZipEntry> entries, Directory(name, bytes, size));
  std::map<std::string, torch::Tensor> arrays;
  size_t packed = 0;
  for (const ZipEntry& entry : entries) {
    const std::string place = absl::StrCat(name, "[", entry.name, "]");
    packed += entry.packed;
    if (packed > size) return Damaged(place, "the entries overlap");
    ASSIGN_OR_RETURN(const std::string content, Unpack(place, entry, bytes, size));
    ASSIGN_OR_RETURN(torch::Tensor array, ParseNpy(place, content.data(), content.size()));
    arrays[std::string(absl::StripSuffix(entry.name, ".npy"))] = std::move(array);
  }
  return arrays;
}

absl::StatusOr<torch::Tensor> ReadNpy(const std::string& path) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  return ParseNpy(path, file.data(), static_cast<size_t>(file.size()));
}

absl::StatusOr<std::map<std::string, torch::Tensor>> ReadNpz(const std::string& path) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  return ParseNpz(path, file.data(), static_cast<size_t>(file.size()));
}

absl::Status WriteNpy(const std::string& path, const torch::Tensor& tensor) {
  ASSIGN_OR_RETURN(const std::string bytes, EncodeNpy(tensor));
  return WriteFileAtomically(path, bytes);
}

absl::Status WriteNpz(const std::string& path, const std::map<std::string, torch::Tensor>& arrays) {
  std::string out, directory;
  for (const auto& [array, tensor] : arrays) {
    ASSIGN_OR_RETURN(const std::string content, EncodeNpy(tensor));
    const std::string name = array + ".npy";
    if (out.size() + content.size() > UINT32_MAX - 65536 || name.size() > UINT16_MAX || arrays.size() > UINT16_MAX)
      return absl::InvalidArgumentError("npz: more than 4 GiB or too many arrays; use safetensors");
    const auto offset = static_cast<uint32_t>(out.size());
    Put<uint32_t>(&out, kLocalEntry);
    PutZipFields(&out, name, content);
    out += name + content;
    Put<uint32_t>(&directory, kDirectoryEntry);
    Put<uint16_t>(&directory, 20);
    PutZipFields(&directory, name, content);
    directory.append(10, '\0');  // comment, disk, attributes
    Put<uint32_t>(&directory, offset);
    directory += name;
  }
  const auto start = static_cast<uint32_t>(out.size());
  out += directory;
  Put<uint32_t>(&out, kEndOfDirectory);
  Put<uint32_t>(&out, 0);
  Put<uint16_t>(&out, static_cast<uint16_t>(arrays.size()));
  Put<uint16_t>(&out, static_cast<uint16_t>(arrays.size()));
  Put<uint32_t>(&out, static_cast<uint32_t>(directory.size()));
  Put<uint32_t>(&out, start);
  Put<uint16_t>(&out, 0);
  return WriteFileAtomically(path, out);
}

}  // namespace athanor
