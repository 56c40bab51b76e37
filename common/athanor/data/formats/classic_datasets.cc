#include "athanor/data/formats/classic_datasets.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/data/images/inflate.h"

namespace athanor {
namespace {

constexpr size_t kLimit = size_t{16} << 30;
constexpr size_t kMaxDims = 64;  // of LibTorch

struct IdxType {
  uint8_t code;
  torch::ScalarType type;
  size_t bytes;
};
constexpr IdxType kIdxTypes[] = {{0x08, torch::kUInt8, 1}, {0x09, torch::kInt8, 1},    {0x0b, torch::kInt16, 2},
                                 {0x0c, torch::kInt32, 4}, {0x0d, torch::kFloat32, 4}, {0x0e, torch::kFloat64, 8}};

uint32_t BigEndian(const std::string& bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

absl::StatusOr<torch::Tensor> ReadIdxOrGz(const std::string& path) {
  if (!std::filesystem::exists(path) && std::filesystem::exists(path + ".gz")) return ReadIdx(path + ".gz");
  return ReadIdx(path);
}

}  // namespace

absl::StatusOr<torch::Tensor> ReadIdx(const std::string& path) {
  ASSIGN_OR_RETURN(std::string bytes, ReadMaybeGzip(path, kLimit));
  const auto damaged = [&](auto&&... what) { return absl::DataLossError(absl::StrCat(path, ": ", what...)); };
  if (bytes.size() < 4 || bytes[0] != 0 || bytes[1] != 0) return damaged("no IDX file");
  const IdxType* type = nullptr;
  for (const IdxType& candidate : kIdxTypes) {
    if (candidate.code == static_cast<uint8_t>(bytes[2])) type = &candidate;
  }
  if (type == nullptr) return damaged("unknown type code ", static_cast<int>(bytes[2]));
  const auto dims = static_cast<size_t>(static_cast<uint8_t>(bytes[3]));
  const size_t start = 4 + 4 * dims;
  if (bytes.size() < start) return damaged("the header is cut");
  if (dims > kMaxDims) return damaged("found ", dims, " dimensions; allowed: ", kMaxDims);
  std::vector<int64_t> shape;
  uint64_t count = 1;
  bool empty = false;
  for (size_t i = 0; i < dims; ++i) {
    shape.push_back(BigEndian(bytes, 4 + 4 * i));
    const auto extent = static_cast<uint64_t>(shape.back());
    empty = empty || extent == 0;
    // Extents beside a zero count too: LibTorch multiplies them.
    const uint64_t factor = std::max<uint64_t>(extent, 1);
    if (count > std::numeric_limits<int64_t>::max() / 16 / factor) return damaged("an impossible shape");
    count *= factor;
  }
  if (empty) count = 0;
  if (bytes.size() - start != count * type->bytes) {
    const uint64_t sample = shape.empty() || shape[0] == 0 ? 1 : count / static_cast<uint64_t>(shape[0]) * type->bytes;
    return damaged("found ", bytes.size() - start, " bytes, the header promises ", count * type->bytes,
                   ": it ends in sample ", (bytes.size() - start) / std::max<uint64_t>(sample, 1));
  }
  for (size_t at = start; type->bytes > 1 && at < bytes.size(); at += type->bytes) {
    std::reverse(bytes.begin() + static_cast<int64_t>(at), bytes.begin() + static_cast<int64_t>(at + type->bytes));
  }
  torch::Tensor tensor = torch::empty(shape, type->type);
  if (count > 0) std::memcpy(tensor.data_ptr(), bytes.data() + start, bytes.size() - start);
  return tensor;
}

absl::StatusOr<ImageSet> ReadMnist(const std::string& folder, bool train) {
  const std::string stem = absl::StrCat(folder, "/", train ? "train" : "t10k");
  ASSIGN_OR_RETURN(torch::Tensor images, ReadIdxOrGz(stem + "-images-idx3-ubyte"));
  ASSIGN_OR_RETURN(torch::Tensor labels, ReadIdxOrGz(stem + "-labels-idx1-ubyte"));
  if (images.dim() != 3 || images.scalar_type() != torch::kUInt8 || labels.dim() != 1 ||
      labels.size(0) != images.size(0)) {
    return absl::DataLossError(absl::StrCat(stem, ": found images ", c10::str(images.sizes()), " and labels ",
                                            c10::str(labels.sizes()), "; allowed: N x H x W bytes and N labels"));
  }
  return ImageSet{images.unsqueeze(1), labels.to(torch::kInt64)};
}

absl::StatusOr<ImageSet> ReadCifar(const std::vector<std::string>& paths, const CifarOptions& options) {
  constexpr int64_t kPixels = 3 * 32 * 32;
  if (options.label_bytes < 1 || options.label_byte < 0 || options.label_byte >= options.label_bytes)
    return absl::InvalidArgumentError(
        absl::StrCat("cifar label_byte: found ", options.label_byte, " of ", options.label_bytes, " label bytes"));
  const int64_t record = options.label_bytes + kPixels;
  std::vector<torch::Tensor> images, labels;
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(const std::string bytes, ReadMaybeGzip(path, kLimit));
    const auto size = static_cast<int64_t>(bytes.size());
    if (size == 0 || size % record != 0) {
      return absl::DataLossError(
          absl::StrCat(path, ": found ", size, " bytes, records have ", record, ": it ends in sample ", size / record));
    }
    const torch::Tensor rows =
        torch::from_blob(const_cast<char*>(bytes.data()), {size / record, record}, torch::kUInt8);
    const torch::Tensor label = rows.select(1, options.label_byte).to(torch::kInt64);
    const torch::Tensor wrong = (label >= options.classes).nonzero();
    if (wrong.size(0) > 0) {
      const int64_t sample = wrong[0][0].item<int64_t>();
      return absl::DataLossError(absl::StrCat(path, ": sample ", sample, " has label ", label[sample].item<int64_t>(),
                                              "; allowed: below ", options.classes));
    }
    labels.push_back(label);
    images.push_back(rows.slice(1, options.label_bytes).reshape({-1, 3, 32, 32}).clone());
  }
  if (images.empty()) return absl::InvalidArgumentError("cifar: no files");
  return ImageSet{torch::cat(images), torch::cat(labels)};
}

}  // namespace athanor
