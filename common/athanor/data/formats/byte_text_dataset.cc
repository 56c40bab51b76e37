#include "athanor/data/formats/byte_text_dataset.h"

#include <array>
#include <cmath>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"

namespace athanor {

absl::StatusOr<std::shared_ptr<ByteTextDataset>> ByteTextDataset::Open(const std::string& path,
                                                                       const ByteTextOptions& options) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) return absl::DataLossError(absl::StrCat(path, ": reading failed"));
  absl::StatusOr<std::shared_ptr<ByteTextDataset>> dataset = FromText(text, options);
  if (!dataset.ok()) return Annotate(dataset.status(), path);
  return dataset;
}

absl::StatusOr<std::shared_ptr<ByteTextDataset>> ByteTextDataset::FromText(const std::string& text,
                                                                           const ByteTextOptions& options) {
  if (options.block_size <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("block_size: found ", options.block_size, "; allowed: integer > 0"));
  }
  if (options.stride < 0)
    return absl::InvalidArgumentError(absl::StrCat("stride: found ", options.stride, "; allowed: integer >= 0"));
  if (!(options.begin >= 0 && options.begin < options.end && options.end <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("part: found ", options.begin, " to ", options.end, "; allowed: 0 <= begin < end <= 1"));
  }
  std::array<bool, 256> occurs{};
  for (char c : text) occurs[static_cast<uint8_t>(c)] = true;
  std::shared_ptr<ByteTextDataset> dataset(new ByteTextDataset());
  std::array<uint8_t, 256> token{};
  for (int byte = 0; byte < 256; ++byte) {
    if (options.compact && !occurs[static_cast<size_t>(byte)]) continue;
    token[static_cast<size_t>(byte)] = static_cast<uint8_t>(dataset->vocabulary_.size());
    dataset->vocabulary_.push_back(static_cast<uint8_t>(byte));
  }
  const auto length = static_cast<double>(text.size());
  const auto first = static_cast<size_t>(std::llround(options.begin * length)),
             last = static_cast<size_t>(std::llround(options.end * length));
  dataset->tokens_.reserve(last - first);
  for (size_t i = first; i < last; ++i) dataset->tokens_.push_back(token[static_cast<uint8_t>(text[i])]);
  dataset->block_size_ = options.block_size;
  dataset->stride_ = options.stride == 0 ? options.block_size : options.stride;
  const auto tokens = static_cast<int64_t>(dataset->tokens_.size());
  if (tokens < options.block_size + 1) {
    return absl::DataLossError(absl::StrCat("the text part has ", tokens,
                                            " bytes; allowed: at least block_size + 1 = ", options.block_size + 1));
  }
  dataset->windows_ = (tokens - options.block_size - 1) / dataset->stride_ + 1;
  return dataset;
}

absl::StatusOr<Batch> ByteTextDataset::Get(const std::vector<int64_t>& indices) const {
  const auto count = static_cast<int64_t>(indices.size());
  Batch batch;
  batch.input = torch::empty({count, block_size_}, torch::kInt64);
  batch.target = torch::empty({count, block_size_}, torch::kInt64);
  batch.size = count;
  int64_t* input = batch.input.data_ptr<int64_t>();
  int64_t* target = batch.target.data_ptr<int64_t>();
  for (int64_t index : indices) {
    if (index < 0 || index >= windows_)
      return absl::OutOfRangeError(absl::StrCat("window ", index, "; allowed: 0 to ", windows_, " exclusive"));
    const uint8_t* from = tokens_.data() + index * stride_;
    for (int64_t i = 0; i < block_size_; ++i) {
      *input++ = from[i];
      *target++ = from[i + 1];
    }
  }
  return batch;
}

}  // namespace athanor
