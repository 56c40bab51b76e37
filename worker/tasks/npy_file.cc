#include "worker/tasks/npy_file.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

constexpr size_t kMaxHeaderBytes = 1 << 20;

std::optional<torch::Dtype> DtypeOf(const std::string& descr) {
  static const auto& types = *new std::map<std::string, torch::Dtype>{
      {"f2", torch::kFloat16}, {"f4", torch::kFloat32}, {"f8", torch::kFloat64},
      {"i1", torch::kInt8},    {"i2", torch::kInt16},   {"i4", torch::kInt32},
      {"i8", torch::kInt64},   {"u1", torch::kUInt8},   {"b1", torch::kBool}};
  if (descr.size() != 3 || (descr[0] != '<' && descr[0] != '|')) return std::nullopt;
  auto found = types.find(descr.substr(1));
  return found == types.end() ? std::nullopt : std::optional(found->second);
}

// The text after "'key':" in the header, which is a Python dictionary of a fixed form.
std::string ValueOf(const std::string& header, const std::string& key, char open, char close) {
  size_t at = header.find(absl::StrCat("'", key, "':"));
  if (at == std::string::npos) return "";
  const size_t begin = header.find(open, at + key.size() + 3);
  const size_t end = begin == std::string::npos ? begin : header.find(close, begin + 1);
  return end == std::string::npos ? "" : header.substr(begin + 1, end - begin - 1);
}

struct NpyHeader {
  torch::Dtype dtype;
  std::vector<int64_t> shape;
};

absl::StatusOr<NpyHeader> ParseHeader(const std::string& header, const std::string& path) {
  const std::string descr = ValueOf(header, "descr", '\'', '\'');
  const std::optional<torch::Dtype> dtype = DtypeOf(descr);
  if (!dtype) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": element type '", descr, "'; allowed: <f2 <f4 <f8 |i1 <i2 <i4 <i8 |u1 |b1"));
  }
  if (absl::StrContains(header, "'fortran_order': True")) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": Fortran order; save numpy.ascontiguousarray(array)"));
  }
  NpyHeader parsed{.dtype = *dtype};
  for (absl::string_view part : absl::StrSplit(ValueOf(header, "shape", '(', ')'), ',', absl::SkipWhitespace())) {
    int64_t size = 0;
    if (!absl::SimpleAtoi(part, &size) || size < 0)
      return absl::DataLossError(absl::StrCat(path, ": shape '", part, "'"));
    parsed.shape.push_back(size);
  }
  return parsed;
}

}  // namespace

absl::StatusOr<torch::Tensor> ReadNpy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", path, ": ", strerror(errno)));
  unsigned char start[12] = {};
  file.read(reinterpret_cast<char*>(start), 10);
  if (!file || std::memcmp(start, "\x93NUMPY", 6) != 0)
    return absl::DataLossError(absl::StrCat(path, ": not a .npy file"));
  size_t header_bytes = start[8] | start[9] << 8;
  if (start[6] > 1) {
    file.read(reinterpret_cast<char*>(start + 10), 2);
    header_bytes |= static_cast<size_t>(start[10]) << 16 | static_cast<size_t>(start[11]) << 24;
  }
  if (!file || header_bytes > kMaxHeaderBytes)
    return absl::DataLossError(absl::StrCat(path, ": header of ", header_bytes, " bytes"));
  std::string header(header_bytes, '\0');
  file.read(header.data(), static_cast<std::streamsize>(header_bytes));
  if (!file) return absl::DataLossError(absl::StrCat(path, ": ends within the header"));
  ASSIGN_OR_RETURN(const NpyHeader parsed, ParseHeader(header, path));

  const std::streamoff data_begins = file.tellg();
  file.seekg(0, std::ios::end);
  const int64_t held = file.tellg() - data_begins;
  int64_t wanted = static_cast<int64_t>(torch::elementSize(parsed.dtype));
  for (int64_t size : parsed.shape) {
    if (__builtin_mul_overflow(wanted, size, &wanted))
      return absl::DataLossError(absl::StrCat(path, ": impossible shape"));
  }
  if (held < wanted) {
    return absl::DataLossError(absl::StrCat(path, ": ends after ", held, " of ", wanted, " bytes of data"));
  }
  torch::Tensor tensor = torch::empty(parsed.shape, parsed.dtype);
  file.seekg(data_begins);
  file.read(static_cast<char*>(tensor.data_ptr()), wanted);
  if (!file) return absl::DataLossError(absl::StrCat(path, ": cannot read ", wanted, " bytes of data"));
  return tensor;
}

}  // namespace athanor
