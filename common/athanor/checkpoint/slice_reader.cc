#include "athanor/checkpoint/slice_reader.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/crc32c.h"
#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/io/dtype_names.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

constexpr int64_t kChunkBytes = 16 * kChecksumBytes;

class SliceReader {
 public:
  SliceReader(const ShardSource& source, const StoredTensors& tensors, const std::vector<WantedBox>& wanted)
      : source_(source), tensors_(tensors), wanted_(wanted) {}

  absl::StatusOr<std::vector<torch::Tensor>> Run() {
    absl::StatusOr<std::vector<RangeRead>> reads = PlanReads(tensors_, wanted_);
    if (!reads.ok()) return Damaged(std::string(reads.status().message()));
    RETURN_IF_ERROR(Allocate());
    std::sort(reads->begin(), reads->end(), [this](const RangeRead& a, const RangeRead& b) {
      const StoredSlice &of_a = SliceOf(a), &of_b = SliceOf(b);
      return std::pair(of_a.file, of_a.offset + a.begin) < std::pair(of_b.file, of_b.offset + b.begin);
    });
    for (const RangeRead& read : *reads) RETURN_IF_ERROR(ReadRange(read));
    return std::move(results_);
  }

 private:
  const StoredSlice& SliceOf(const RangeRead& read) const {
    return tensors_.at(wanted_[read.wanted].name).slices[read.slice];
  }
  absl::Status Damaged(const std::string& what) const {
    return absl::DataLossError(absl::StrCat(source_.store.Describe(source_.folder + kManifestFile), ": ", what));
  }

  // What a manifest promises beyond the bytes of its shards shall not cost memory.
  absl::Status Allocate() {
    int64_t left = 0;
    for (const ShardInfo& shard : source_.manifest.shards) left += shard.bytes;
    for (const auto& [name, box] : wanted_) {
      const StoredTensor& tensor = tensors_.at(name);
      const std::optional<torch::ScalarType> dtype = DtypeOfSafetensors(tensor.dtype);
      if (!dtype.has_value()) return Damaged(absl::StrCat("tensor '", name, "': unknown dtype '", tensor.dtype, "'"));
      const auto element = static_cast<int64_t>(torch::elementSize(*dtype));
      ASSIGN_OR_RETURN(const int64_t stored, ElementBytes(name, tensor));
      if (stored != 0 && stored != element)
        return Damaged(absl::StrCat("tensor '", name, "': has ", stored, " bytes for each ", tensor.dtype));
      int64_t bytes = element;  // extents beside a zero count too: LibTorch multiplies them
      for (const int64_t extent : box.extent) {
        if (__builtin_mul_overflow(bytes, std::max<int64_t>(extent, 1), &bytes))
          return Damaged(absl::StrCat("tensor '", name, "': its size overflows"));
      }
      left -= Elements(box) * element;
      if (left < 0) return Damaged("the tensors are larger than the shards");
      RETURN_IF_ERROR(RunTorch("reading a checkpoint", [&] {
        results_.push_back(torch::empty(box.extent, torch::TensorOptions().dtype(*dtype)));
      }));
    }
    return absl::OkStatus();
  }

  absl::Status OpenFile(int file) {
    if (file == open_file_) return absl::OkStatus();
    const ShardInfo& shard = source_.manifest.shards[static_cast<size_t>(file)];
    name_ = source_.folder + shard.file;
    absl::StatusOr<std::unique_ptr<StoreReader>> reader = source_.store.Open(name_);
    if (!reader.ok()) return source_.Judge(reader.status());
    reader_ = *std::move(reader);
    open_file_ = file;
    return absl::OkStatus();
  }

  absl::Status ReadRange(const RangeRead& read) {
    RETURN_IF_ERROR(OpenFile(SliceOf(read).file));
    char* const target = static_cast<char*>(results_[read.wanted].data_ptr());
    const ByteRun& first = read.runs.front();
    const bool direct = read.runs.size() == 1 && first.from == read.begin && first.from + first.bytes == read.end;
    size_t next = 0;  // the first run that is not copied yet
    for (int64_t at = read.begin; at < read.end; at += kChunkBytes) {
      const int64_t size = std::min(kChunkBytes, read.end - at);
      if (direct) {
        RETURN_IF_ERROR(ReadBlocks(read, at, size, target + first.to + (at - first.from)));
        continue;
      }
      scratch_.resize(static_cast<size_t>(std::max(size, static_cast<int64_t>(scratch_.size()))));
      RETURN_IF_ERROR(ReadBlocks(read, at, size, scratch_.data()));
      for (; next < read.runs.size() && read.runs[next].from < at + size; ++next) {
        const ByteRun& run = read.runs[next];
        const int64_t begin = std::max(run.from, at), end = std::min(run.from + run.bytes, at + size);
        std::memcpy(target + run.to + (begin - run.from), scratch_.data() + (begin - at),
                    static_cast<size_t>(end - begin));
        if (run.from + run.bytes > at + size) break;  // goes on in the next chunk
      }
    }
    return absl::OkStatus();
  }

  // Whole blocks of the slice, from byte `begin` of it on.
  absl::Status ReadBlocks(const RangeRead& read, int64_t begin, int64_t size, char* to) {
    const StoredSlice& slice = SliceOf(read);
    RETURN_IF_ERROR(source_.Judge(reader_->Read(slice.offset + begin, size, to)));
    for (int64_t at = 0; at < size; at += kChecksumBytes) {
      const int64_t length = std::min(kChecksumBytes, size - at);
      const uint32_t crc = Crc32c(0, to + at, static_cast<size_t>(length));
      const uint32_t wanted = slice.crc32c[static_cast<size_t>((begin + at) / kChecksumBytes)];
      if (crc == wanted) continue;
      const int64_t place = slice.offset + begin + at;
      return absl::DataLossError(absl::StrFormat(
          "%s: bytes %d to %d (of the tensor '%s') have CRC32C %08x, the manifest says %08x",
          source_.store.Describe(name_), place, place + length, wanted_[read.wanted].name, crc, wanted));
    }
    if (source_.on_bytes) source_.on_bytes("reading a checkpoint", size);
    return absl::OkStatus();
  }

  const ShardSource& source_;
  const StoredTensors& tensors_;
  const std::vector<WantedBox>& wanted_;
  std::vector<torch::Tensor> results_;
  std::vector<char> scratch_;
  int open_file_ = -1;
  std::string name_;
  std::unique_ptr<StoreReader> reader_;
};

}  // namespace

absl::StatusOr<std::vector<torch::Tensor>> ReadBoxes(const ShardSource& source, const StoredTensors& tensors,
                                                     const std::vector<WantedBox>& wanted) {
  return SliceReader(source, tensors, wanted).Run();
}

absl::StatusOr<std::map<std::string, torch::Tensor>> ReadTensors(const ShardSource& source,
                                                                 const StoredTensors& tensors) {
  // Of names that share their bytes the first one is read.
  std::map<std::pair<int, int64_t>, std::vector<std::pair<const StoredTensor*, size_t>>> by_place;
  std::vector<WantedBox> wanted;
  std::map<std::string, size_t> index;
  for (const auto& [name, tensor] : tensors) {
    if (tensor.slices.empty() || tensor.slices[0].bytes == 0) {
      index[name] = wanted.size();
      wanted.push_back({name, WholeBox(tensor.shape)});
      continue;
    }
    auto& here = by_place[{tensor.slices[0].file, tensor.slices[0].offset}];
    const auto same =
        std::find_if(here.begin(), here.end(), [&tensor = tensor](const auto& one) { return *one.first == tensor; });
    index[name] = same == here.end() ? wanted.size() : same->second;
    if (same != here.end()) continue;
    here.emplace_back(&tensor, wanted.size());
    wanted.push_back({name, WholeBox(tensor.shape)});
  }
  ASSIGN_OR_RETURN(const std::vector<torch::Tensor> read, ReadBoxes(source, tensors, wanted));
  std::map<std::string, torch::Tensor> named;
  for (const auto& [name, at] : index) named[name] = read[at];
  return named;
}

}  // namespace athanor
