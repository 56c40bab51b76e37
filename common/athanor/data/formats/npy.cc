#include "athanor/data/formats/npy.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/data/images/inflate.h"
#include "athanor/io/dtype_names.h"
#include "athanor/io/mapped_file.h"
#include "athanor/io/tensor_file.h"

namespace athanor {
namespace {

constexpr size_t kMaxDims = 64;  // of LibTorch and NumPy

template <class... Parts>
absl::Status Damaged(const std::string& name, const Parts&... parts) {
  return absl::DataLossError(absl::StrCat(name, ": ", parts...));
}

using Header = NpyLayout;

// The Python literal of a header, however it is spaced and quoted: a dictionary of texts, True or False, tuples of
// integers (with an L behind them in those of Python 2).
class HeaderText {
 public:
  HeaderText(const std::string& name, absl::string_view text) : name_(name), text_(text) {}

  absl::StatusOr<Header> Read() {
    if (!Take('{')) return Wrong("is no dictionary");
    while (!Take('}')) {
      std::string key;
      if (!TakeText(&key) || !Take(':')) return Wrong("is no dictionary of texts");
      RETURN_IF_ERROR(ReadValue(key));
      if (!Take(',') && Peek() != '}') return Wrong("is no dictionary");
    }
    for (const auto& [key, found] :
         {std::pair("descr", has_dtype_), std::pair("fortran_order", has_order_), std::pair("shape", has_shape_)}) {
      if (!found) return Damaged(name_, "the header has no '", key, "'");
    }
    return Peek() == '\0' ? absl::StatusOr<Header>(header_) : Wrong("goes on behind the dictionary");
  }

 private:
  absl::Status Wrong(absl::string_view what) const { return Damaged(name_, "the header ", what, " at its byte ", at_); }

  char Peek() {
    while (at_ < text_.size() && absl::ascii_isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool Take(char wanted) {
    if (Peek() != wanted) return false;
    ++at_;
    return true;
  }
  bool TakeText(std::string* text) {
    const char prefix = Peek();  // u'…' and b'…'
    if (prefix == 'u' || prefix == 'b') ++at_;
    const char quote = Peek();
    if (quote != '\'' && quote != '"') return false;
    const size_t end = text_.find(quote, at_ + 1);
    if (end == absl::string_view::npos) return false;
    *text = std::string(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return true;
  }
  absl::string_view TakeWord() {
    (void)Peek();
    const size_t from = at_;
    while (at_ < text_.size() && absl::ascii_isalnum(static_cast<unsigned char>(text_[at_]))) ++at_;
    return text_.substr(from, at_ - from);
  }

  absl::Status ReadValue(const std::string& key) {
    if (key == "descr") {
      has_dtype_ = TakeText(&header_.dtype);
      return has_dtype_ ? absl::OkStatus() : Damaged(name_, "structured arrays are not supported");
    }
    if (key == "fortran_order") {
      const absl::string_view word = TakeWord();
      has_order_ = true;
      header_.fortran = word == "True";
      return word == "True" || word == "False" ? absl::OkStatus() : Wrong("says neither True nor False");
    }
    if (key != "shape") return Damaged(name_, "the header has '", key.substr(0, 32), "', which no .npy has");
    has_shape_ = true;
    header_.shape.clear();
    if (!Take('(')) return Damaged(name_, "the shape is no tuple");
    while (!Take(')')) {
      absl::string_view part = TakeWord();
      absl::ConsumeSuffix(&part, "L");
      int64_t extent = 0;
      if (!absl::SimpleAtoi(part, &extent) || extent < 0) return Damaged(name_, "the shape holds \"", part, "\"");
      header_.shape.push_back(extent);
      if (header_.shape.size() > kMaxDims) return Damaged(name_, "more than ", kMaxDims, " dimensions");
      if (!Take(',') && Peek() != ')') return Wrong("has a shape that is no tuple");
    }
    return absl::OkStatus();
  }

  const std::string& name_;
  absl::string_view text_;
  size_t at_ = 0;
  Header header_;
  bool has_dtype_ = false, has_order_ = false, has_shape_ = false;
};

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

// LibTorch's own unsigned types lack most operations: u2, u4 and u8 become the next wider signed ones, u8 as long as
// its values fit.
template <class From, class To>
absl::StatusOr<torch::Tensor> Widened(const std::string& name, const char* data, size_t count, torch::ScalarType to) {
  torch::Tensor wide = torch::empty({static_cast<int64_t>(count)}, to);
  To* out = wide.data_ptr<To>();
  for (size_t i = 0; i < count; ++i) {
    From value;
    std::memcpy(&value, data + i * sizeof(From), sizeof(From));
    if (value > static_cast<uint64_t>(std::numeric_limits<To>::max()))
      return Damaged(name, "element ", i, ": found ", value, "; allowed: below 2^63");
    out[i] = static_cast<To>(value);
  }
  return wide;
}

// Turns the bytes of every number around.
std::string Swapped(const char* data, size_t size, size_t width) {
  std::string bytes(data, size);
  for (size_t at = 0; at + width <= size; at += width)
    std::reverse(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                 bytes.begin() + static_cast<std::ptrdiff_t>(at + width));
  return bytes;
}

absl::StatusOr<torch::Tensor> Flat(const std::string& name, torch::ScalarType dtype, const char* data, size_t count) {
  if (dtype == torch::kUInt16) return Widened<uint16_t, int32_t>(name, data, count, torch::kInt32);
  if (dtype == torch::kUInt32) return Widened<uint32_t, int64_t>(name, data, count, torch::kInt64);
  if (dtype == torch::kUInt64) return Widened<uint64_t, int64_t>(name, data, count, torch::kInt64);
  torch::Tensor flat = torch::empty({static_cast<int64_t>(count)}, dtype);
  if (count > 0) std::memcpy(flat.data_ptr(), data, flat.nbytes());
  return flat;
}

// What numpy.dtype() also takes, on a machine where a C long has 64 bits. Letters may have a byte order, names none.
constexpr std::pair<absl::string_view, absl::string_view> kLetters[] = {
    {"?", "b1"}, {"b", "i1"}, {"B", "u1"}, {"h", "i2"}, {"H", "u2"}, {"i", "i4"},
    {"I", "u4"}, {"l", "i8"}, {"L", "u8"}, {"q", "i8"}, {"Q", "u8"}, {"p", "i8"},
    {"P", "u8"}, {"e", "f2"}, {"f", "f4"}, {"d", "f8"}, {"F", "c8"}, {"D", "c16"}};
constexpr std::pair<absl::string_view, absl::string_view> kNames[] = {
    {"bool", "b1"},     {"bool_", "b1"},   {"int8", "i1"},      {"byte", "i1"},    {"uint8", "u1"},
    {"ubyte", "u1"},    {"int16", "i2"},   {"short", "i2"},     {"uint16", "u2"},  {"ushort", "u2"},
    {"int32", "i4"},    {"intc", "i4"},    {"uint32", "u4"},    {"uintc", "u4"},   {"int64", "i8"},
    {"int", "i8"},      {"int_", "i8"},    {"intp", "i8"},      {"long", "i8"},    {"longlong", "i8"},
    {"uint64", "u8"},   {"uint", "u8"},    {"uintp", "u8"},     {"ulong", "u8"},   {"ulonglong", "u8"},
    {"float16", "f2"},  {"half", "f2"},    {"float32", "f4"},   {"single", "f4"},  {"float64", "f8"},
    {"double", "f8"},   {"float", "f8"},   {"complex64", "c8"}, {"csingle", "c8"}, {"complex128", "c16"},
    {"cdouble", "c16"}, {"complex", "c16"}};

template <size_t kCount>
absl::string_view FindIn(const std::pair<absl::string_view, absl::string_view> (&table)[kCount],
                         absl::string_view name) {
  for (const auto& [known, kind] : table) {
    if (known == name) return kind;
  }
  return name;
}

absl::StatusOr<torch::Tensor> Elements(const std::string& name, const Header& header, const char* data, size_t size) {
  const std::optional<NpyDtype> dtype = ParseNpyDtype(header.dtype);
  if (!dtype.has_value()) {
    return Damaged(name, "found dtype \"", header.dtype, "\"; allowed: ", NamesOf(&DtypeNames::numpy),
                   " of either byte order");
  }
  const size_t bytes = torch::elementSize(dtype->type);
  const std::optional<size_t> count = ElementCount(header.shape, bytes);
  if (!count || *count * bytes > size) {
    return Damaged(name, "found ", size, " bytes of data for shape (", absl::StrJoin(header.shape, ", "), ") of ",
                   header.dtype);
  }
  const size_t part = torch::isComplexType(dtype->type) ? bytes / 2 : bytes;
  const std::string swapped = dtype->big_endian && part > 1 ? Swapped(data, *count * bytes, part) : "";
  ASSIGN_OR_RETURN(torch::Tensor flat, Flat(name, dtype->type, swapped.empty() ? data : swapped.data(), *count));
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
  const DtypeNames* dtype = FindDtype(tensor.scalar_type());
  if (dtype == nullptr || dtype->numpy == nullptr)
    return absl::InvalidArgumentError(absl::StrCat("npy: NumPy has no ", c10::toString(tensor.scalar_type())));
  const torch::Tensor dense = DenseOnHost(tensor);
  std::string header = absl::StrCat("{'descr': '", dense.element_size() == 1 ? "|" : "<", dtype->numpy,
                                    "', 'fortran_order': False, 'shape': (", absl::StrJoin(dense.sizes(), ", "),
                                    dense.dim() == 1 ? ",), }" : "), }");
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

absl::StatusOr<NpyLayout> ParseNpyLayout(const std::string& name, const char* bytes, size_t size) {
  if (size < 10 || std::memcmp(bytes, "\x93NUMPY", 6) != 0) return Damaged(name, "no .npy file");
  const int version = bytes[6];
  if (version < 1 || version > 3) return Damaged(name, "found format version ", version, "; allowed: 1, 2, 3");
  const size_t start = version == 1 ? 10 : 12;
  if (size < start) return Damaged(name, "the header is cut");
  const size_t length = version == 1 ? LittleEndian<uint16_t>(bytes + 8) : LittleEndian<uint32_t>(bytes + 8);
  if (length > size - start) return Damaged(name, "the header is cut");
  ASSIGN_OR_RETURN(NpyLayout layout, HeaderText(name, absl::string_view(bytes + start, length)).Read());
  layout.begin = start + length;
  return layout;
}

// "<f4" is a byte order and a type; "|" says that there is none, and NumPy takes it for the machine's.
std::optional<NpyDtype> ParseNpyDtype(absl::string_view dtype) {
  const bool ordered = !dtype.empty() && absl::StrContains("<>|=", dtype.substr(0, 1));
  absl::string_view kind = ordered ? dtype.substr(1) : FindIn(kNames, dtype);
  kind = FindIn(kLetters, kind);
  const std::optional<torch::ScalarType> type = DtypeOfNumpy({kind.data(), kind.size()});
  if (!type.has_value()) return std::nullopt;
  return NpyDtype{*type, absl::StartsWith(dtype, ">")};
}

absl::StatusOr<torch::Tensor> ParseNpy(const std::string& name, const char* bytes, size_t size) {
  ASSIGN_OR_RETURN(const NpyLayout layout, ParseNpyLayout(name, bytes, size));
  return Elements(name, layout, bytes + layout.begin, size - layout.begin);
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
