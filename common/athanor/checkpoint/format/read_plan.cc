#include "athanor/checkpoint/format/read_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

// Elements from one place to the next, by dimension.
std::vector<int64_t> Strides(const std::vector<int64_t>& extent) {
  std::vector<int64_t> strides(extent.size(), 1);
  for (size_t i = extent.size(); i-- > 1;) strides[i - 1] = strides[i] * extent[i];
  return strides;
}

int64_t Place(const Box& of, const std::vector<int64_t>& strides, const std::vector<int64_t>& at) {
  int64_t place = 0;
  for (size_t i = 0; i < at.size(); ++i) place += (at[i] - of.begin[i]) * strides[i];
  return place;
}

// `part` lies within both.
std::vector<ByteRun> RunsOf(const Box& part, const Box& slice, const Box& wanted, int64_t element) {
  const std::vector<int64_t> from = Strides(slice.extent), to = Strides(wanted.extent);
  // The last dimensions that are whole in both stand in one run, and one more.
  size_t outer = part.begin.size();
  int64_t length = 1;
  while (outer > 0) {
    --outer;
    length *= part.extent[outer];
    if (part.extent[outer] != slice.extent[outer] || part.extent[outer] != wanted.extent[outer]) break;
  }
  std::vector<ByteRun> runs;
  std::vector<int64_t> at = part.begin;
  while (true) {
    runs.push_back({Place(slice, from, at) * element, Place(wanted, to, at) * element, length * element});
    size_t i = outer;
    while (i > 0) {  // the next row
      --i;
      if (++at[i] < part.begin[i] + part.extent[i]) break;
      at[i] = part.begin[i];
      if (i == 0) return runs;
    }
    if (outer == 0) return runs;
  }
}

// One read for runs whose blocks touch or are the same.
void AddReads(size_t wanted, size_t slice, int64_t slice_bytes, std::vector<ByteRun> runs,
              std::vector<RangeRead>* reads) {
  const size_t first = reads->size();
  for (const ByteRun& run : runs) {
    const int64_t begin = run.from / kChecksumBytes * kChecksumBytes;
    const int64_t end =
        std::min((run.from + run.bytes + kChecksumBytes - 1) / kChecksumBytes * kChecksumBytes, slice_bytes);
    if (reads->size() == first || begin > reads->back().end)
      reads->push_back({.wanted = wanted, .slice = slice, .begin = begin, .end = end, .runs = {}});
    reads->back().end = std::max(reads->back().end, end);
    reads->back().runs.push_back(run);
  }
}

}  // namespace

absl::StatusOr<int64_t> ElementBytes(const std::string& name, const StoredTensor& tensor) {
  int64_t bytes = 0;
  for (const StoredSlice& slice : tensor.slices) {
    const int64_t elements = Elements(slice.box);
    if (elements == 0 && slice.bytes == 0) continue;
    const int64_t each = elements == 0 ? 0 : slice.bytes / elements;
    if (each == 0 || each * elements != slice.bytes || (bytes != 0 && each != bytes)) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "': found ", slice.bytes, " bytes for ",
                                                     elements, " elements ", ToString(slice.box)));
    }
    bytes = each;
  }
  return bytes;
}

absl::StatusOr<std::vector<RangeRead>> PlanReads(const StoredTensors& stored, const std::vector<WantedBox>& wanted) {
  std::vector<RangeRead> reads;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const auto& [name, box] = wanted[i];
    const auto found = stored.find(name);
    if (found == stored.end()) return absl::NotFoundError(absl::StrCat("tensor '", name, "' is missing"));
    const StoredTensor& tensor = found->second;
    if (!IsWithin(box, tensor.shape)) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "': found a box ", ToString(box),
                                                     "; allowed: within ", ToString(WholeBox(tensor.shape))));
    }
    ASSIGN_OR_RETURN(const int64_t element, ElementBytes(name, tensor));
    TensorLayout from{tensor.dtype, tensor.shape, {}}, to{tensor.dtype, tensor.shape, {{box, 0}}};
    for (const StoredSlice& slice : tensor.slices) from.pieces.push_back({slice.box, slice.file});
    ASSIGN_OR_RETURN(std::vector<BoxCopy> copies, PlanCopies({{name, from}}, {{name, to}}));
    std::sort(copies.begin(), copies.end(), [](const BoxCopy& a, const BoxCopy& b) { return a.source < b.source; });
    for (size_t at = 0; at < copies.size();) {
      const size_t slice = copies[at].source;
      std::vector<ByteRun> runs;
      for (; at < copies.size() && copies[at].source == slice; ++at) {
        for (const ByteRun& run : RunsOf(copies[at].box, tensor.slices[slice].box, box, element)) runs.push_back(run);
      }
      std::sort(runs.begin(), runs.end(), [](const ByteRun& a, const ByteRun& b) { return a.from < b.from; });
      AddReads(i, slice, tensor.slices[slice].bytes, std::move(runs), &reads);
    }
  }
  return reads;
}

}  // namespace athanor
