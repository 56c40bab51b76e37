// Windows of a text for next-byte prediction. Input: block_size bytes; target: the same, one further. Both N x
// block_size, int64.
//
//   ASSIGN_OR_RETURN(auto train, ByteTextDataset::Open("corpus.txt", {.block_size = 128, .end = 0.9}));
//   ASSIGN_OR_RETURN(auto test, ByteTextDataset::Open("corpus.txt", {.block_size = 128, .begin = 0.9}));
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/data/dataset.h"

namespace athanor {

struct ByteTextOptions {
  int64_t block_size = 128;
  int64_t stride = 0;  // between the starts of windows; 0 = block_size (no overlap)
  double begin = 0;    // the part of the file, as shares of its length
  double end = 1;
  bool compact =
      true;  // tokens number the bytes that occur in the whole file (vocabulary() of them); false: the byte values, 256
};

class ByteTextDataset : public Dataset {
 public:
  // NOT_FOUND names the file; INVALID_ARGUMENT names the option; DATA_LOSS when the part is shorter than one window.
  static absl::StatusOr<std::shared_ptr<ByteTextDataset>> Open(const std::string& path, const ByteTextOptions& options);
  static absl::StatusOr<std::shared_ptr<ByteTextDataset>> FromText(const std::string& text,
                                                                   const ByteTextOptions& options);

  int64_t size() const override { return windows_; }
  absl::StatusOr<Batch> Get(const std::vector<int64_t>& indices) const override;
  bool may_leave_out() const override { return false; }

  int64_t vocabulary_size() const { return static_cast<int64_t>(vocabulary_.size()); }
  // Token -> byte, ascending.
  const std::vector<uint8_t>& vocabulary() const { return vocabulary_; }

 private:
  ByteTextDataset() = default;
  std::vector<uint8_t> tokens_;
  std::vector<uint8_t> vocabulary_;
  int64_t block_size_ = 0;
  int64_t stride_ = 0;
  int64_t windows_ = 0;
};

}  // namespace athanor
