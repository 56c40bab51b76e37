// What to read of a checkpoint's files to have certain parts of certain tensors. Pure.
//
//   ASSIGN_OR_RETURN(const std::vector<RangeRead> reads, PlanReads(manifest.tensors, {{"model.weight", box}}));
//
// A slice is a part of a tensor that lies in a file in one run of bytes, row by row. It is checked block by block, so
// whole blocks are read: those that hold a wanted byte, and no others.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/parallel/layout.h"

namespace athanor {

inline constexpr int64_t kChecksumBytes = 1 << 20;

struct StoredSlice {
  Box box;
  int file = 0;        // which of the checkpoint's files
  int64_t offset = 0;  // in the file
  int64_t bytes = 0;
  std::vector<uint32_t> crc32c;  // of each kChecksumBytes from the slice's begin on; the last block may be shorter
  friend bool operator==(const StoredSlice&, const StoredSlice&) = default;
};

struct StoredTensor {
  std::string dtype;           // as safetensors names it: "F32"
  std::vector<int64_t> shape;  // of the whole tensor
  std::vector<StoredSlice> slices;
  friend bool operator==(const StoredTensor&, const StoredTensor&) = default;
};

using StoredTensors = std::map<std::string, StoredTensor>;

// A part that somebody wants, in memory of its own, row by row.
struct WantedBox {
  std::string name;
  Box box;
};

// Bytes that stand behind each other in the slice as well as in the wanted box.
struct ByteRun {
  int64_t from = 0, to = 0;  // in the slice, in the wanted box
  int64_t bytes = 0;
};

// Whole blocks of one slice that follow each other.
struct RangeRead {
  size_t wanted = 0, slice = 0;  // which wanted box, which slice of its tensor
  int64_t begin = 0, end = 0;    // bytes of the slice
  std::vector<ByteRun> runs;     // ascending by `from`
};

// Bytes of one element. INVALID_ARGUMENT when a slice has no whole number of them, or not all have the same.
absl::StatusOr<int64_t> ElementBytes(const std::string& name, const StoredTensor& tensor);

// Every byte of every wanted box comes from exactly one run. NOT_FOUND, INVALID_ARGUMENT, DATA_LOSS as PlanCopies().
absl::StatusOr<std::vector<RangeRead>> PlanReads(const StoredTensors& stored, const std::vector<WantedBox>& wanted);

}  // namespace athanor
