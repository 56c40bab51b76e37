#include "athanor/data/formats/token_dataset.h"

#include <cstring>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/data/formats/npy.h"

namespace athanor {
namespace {

constexpr int64_t kHeaderBytes = 256 * 4;
constexpr int32_t kMagic16 = 20240520, kMagic32 = 20240801;

int32_t HeaderWord(const MappedFile& file, int64_t word) {
  int32_t value = 0;
  std::memcpy(&value, file.data() + word * 4, 4);
  return value;
}

bool IsNpy(const MappedFile& file) {
  constexpr std::string_view kMagic = "\x93NUMPY";
  return std::string_view(file.data(), static_cast<size_t>(file.size())).substr(0, kMagic.size()) == kMagic;
}

struct NpyTokens {
  int64_t begin = 0, count = 0;
  int token_bytes = 0;
};

// Of an array that numpy.save wrote.
absl::StatusOr<NpyTokens> TokensOfNpy(const std::string& path, const MappedFile& file) {
  ASSIGN_OR_RETURN(const NpyLayout layout, ParseNpyLayout(path, file.data(), static_cast<size_t>(file.size())));
  const std::optional<NpyDtype> dtype = ParseNpyDtype(layout.dtype);
  const bool known = dtype.has_value() && !dtype->big_endian;
  const bool narrow = known && dtype->type == torch::kUInt16;
  const bool wide = known && (dtype->type == torch::kUInt32 || dtype->type == torch::kInt32);
  if (layout.shape.size() != 1 || !(narrow || wide)) {
    return absl::DataLossError(absl::StrCat(path, ": found an array of ", layout.shape.size(), " dimensions of ",
                                            layout.dtype, "; allowed: one dimension of <u2, <u4 or <i4"));
  }
  return NpyTokens{static_cast<int64_t>(layout.begin), layout.shape[0], narrow ? 2 : 4};
}

}  // namespace

absl::StatusOr<std::shared_ptr<TokenDataset>> TokenDataset::Open(const std::string& path, const TokenOptions& options) {
  const auto bad = [](auto&&... what) { return absl::InvalidArgumentError(absl::StrCat("tokens ", what...)); };
  if (options.block_size <= 0) return bad("block_size: found ", options.block_size, "; allowed: integer > 0");
  if (options.stride < 0) return bad("stride: found ", options.stride, "; allowed: integer >= 0");
  if (options.token_bytes != 2 && options.token_bytes != 4)
    return bad("token_bytes: found ", options.token_bytes, "; allowed: 2, 4");
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  std::shared_ptr<TokenDataset> dataset(new TokenDataset(std::move(file), path, options));
  const int64_t size = dataset->file_.size();
  const int32_t magic = size >= kHeaderBytes ? HeaderWord(dataset->file_, 0) : 0;
  std::optional<int64_t> promised;
  int64_t end = size;
  if (magic == kMagic16 || magic == kMagic32) {
    dataset->options_.token_bytes = magic == kMagic16 ? 2 : 4;
    dataset->offset_ = kHeaderBytes;
    promised = HeaderWord(dataset->file_, 2);
  }
  if (IsNpy(dataset->file_)) {
    ASSIGN_OR_RETURN(const NpyTokens array, TokensOfNpy(path, dataset->file_));
    dataset->offset_ = array.begin;
    dataset->options_.token_bytes = array.token_bytes;
    promised = array.count;
    // As numpy.load: what lies behind the array is none of it.
    if (array.count <= (size - array.begin) / array.token_bytes) end = array.begin + array.count * array.token_bytes;
  }
  const int64_t bytes = end - dataset->offset_;
  dataset->tokens_ = bytes / dataset->options_.token_bytes;
  if (bytes % dataset->options_.token_bytes != 0 || (promised && *promised != dataset->tokens_)) {
    return absl::DataLossError(absl::StrCat(path, ": found ", bytes, " bytes of tokens of ",
                                            dataset->options_.token_bytes, " bytes",
                                            promised ? absl::StrCat("; the header promises ", *promised) : ""));
  }
  if (dataset->tokens_ < options.block_size + 1) {
    return absl::DataLossError(absl::StrCat(path, ": ", dataset->tokens_,
                                            " tokens; allowed: at least block_size + 1 = ", options.block_size + 1));
  }
  if (options.stride == 0) dataset->options_.stride = options.block_size;
  dataset->windows_ = (dataset->tokens_ - options.block_size - 1) / dataset->options_.stride + 1;
  return dataset;
}

int64_t TokenDataset::Token(int64_t at) const {
  const char* place = file_.data() + offset_ + at * options_.token_bytes;
  if (options_.token_bytes == 2) {
    uint16_t token = 0;
    std::memcpy(&token, place, 2);
    return token;
  }
  uint32_t token = 0;
  std::memcpy(&token, place, 4);
  return token;
}

absl::StatusOr<Batch> TokenDataset::Get(const std::vector<int64_t>& indices) const {
  const auto count = static_cast<int64_t>(indices.size());
  Batch batch;
  batch.input = torch::empty({count, options_.block_size}, torch::kInt64);
  batch.target = torch::empty({count, options_.block_size}, torch::kInt64);
  batch.size = count;
  int64_t* input = batch.input.data_ptr<int64_t>();
  int64_t* target = batch.target.data_ptr<int64_t>();
  for (const int64_t index : indices) {
    if (index < 0 || index >= windows_)
      return absl::OutOfRangeError(absl::StrCat("window ", index, "; allowed: 0 to ", windows_, " exclusive"));
    for (int64_t i = 0; i <= options_.block_size; ++i) {
      const int64_t token = Token(index * options_.stride + i);
      if (options_.vocabulary > 0 && token >= options_.vocabulary) {
        return absl::DataLossError(absl::StrCat(path_, ": window ", index, ", token ", i, ": found ", token,
                                                "; allowed: below ", options_.vocabulary));
      }
      if (i < options_.block_size) *input++ = token;
      if (i > 0) *target++ = token;
    }
  }
  return batch;
}

}  // namespace athanor
