// Folders of torch.distributed.checkpoint: ".metadata" is a pickle of dataclasses, which say where in which file each
// chunk of a tensor lies; a chunk is what torch.save writes for a tensor.
#include <algorithm>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/exchange/sources.h"
#include "athanor/io/dtype_names.h"
#include "athanor/io/pickle_reader.h"
#include "athanor/io/state_dict_archive.h"
#include "athanor/parallel/layout.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

using Kind = PickleValue::Kind;
constexpr size_t kMetadataLimit = size_t{1} << 30;
constexpr size_t kMaxDims = 64;
// What a metadata file may make of the bytes of its data files: views with strides of zero, zips' own bytes.
constexpr int64_t kFreeBytes = int64_t{256} << 20, kBytesPerByte = 64;
constexpr char kModule[] = "torch.distributed.checkpoint.metadata.";

struct Chunk {
  Box box;
  std::string file;
  int64_t offset = 0, length = 0;
};

struct Stored {
  std::vector<Chunk> chunks;
};

// The state of an object of a class; null for anything else.
const PickleValue* StateOf(const PickleValue* value, std::string_view cls) {
  if (value == nullptr || !value->Is(Kind::kCall) || !value->items[0]->Is(Kind::kGlobal)) return nullptr;
  return value->items[0]->text == cls ? value->state : nullptr;
}
const PickleValue* StateOf(const PickleValue* value, const char* module, const char* name) {
  return StateOf(value, absl::StrCat(module, name));
}

// A torch.Size.
std::optional<std::vector<int64_t>> SizeOf(const PickleValue* value) {
  const PickleValue* tuple = value;
  if (value != nullptr && value->Is(Kind::kCall)) {
    if (!value->items[0]->Is(Kind::kGlobal) || value->items[0]->text != "torch.Size" ||
        value->items[1]->items.size() != 1)
      return std::nullopt;
    tuple = value->items[1]->items[0];
  }
  if (tuple == nullptr || (!tuple->Is(Kind::kTuple) && !tuple->Is(Kind::kList)) || tuple->items.size() > kMaxDims)
    return std::nullopt;
  std::vector<int64_t> sizes;
  for (const PickleValue* item : tuple->items) {
    if (!item->Is(Kind::kInt) || item->integer < 0) return std::nullopt;
    sizes.push_back(item->integer);
  }
  return sizes;
}

class TorchDistributedSource : public TensorSource {
 public:
  explicit TorchDistributedSource(std::string folder) : folder_(std::move(folder)) {
    format_ = TensorFormat::kTorchDistributed;
  }

  absl::Status Open() {
    const std::string path = (folder_ / kTorchDistributedMetadata).string();
    ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMetadataLimit));
    ASSIGN_OR_RETURN(const PickleDocument document, ParsePickle(path, bytes));
    const PickleValue* state = StateOf(document.root, kModule, "Metadata");
    if (state == nullptr)
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": holds ", Describe(*document.root), "; allowed: the Metadata of a checkpoint"));
    RETURN_IF_ERROR(ReadPlaces(state->Find("storage_data")));
    RETURN_IF_ERROR(ReadTensors(state->Find("state_dict_metadata")));
    if (const PickleValue* planner = state->Find("planner_data"); planner != nullptr) MarkNested(*planner);
    places_.clear();
    return absl::OkStatus();
  }

  absl::StatusOr<torch::Tensor> Read(const std::string& name) override {
    const SourceTensor& described = tensors_.at(name);
    absl::StatusOr<torch::Tensor> whole = RunTorch("reading a tensor", [&] {
      return torch::empty(described.shape, torch::TensorOptions().dtype(described.dtype));
    });
    if (!whole.ok()) return Damaged(name, whole.status().message());
    for (const Chunk& chunk : stored_.at(name).chunks) {
      ASSIGN_OR_RETURN(const std::unique_ptr<StateDictArchive> archive,
                       StateDictArchive::OpenTensor((folder_ / chunk.file).string(), chunk.offset, chunk.length));
      const ArchiveTensor& found = archive->tensors()[0];
      if (found.dtype != described.dtype || found.sizes != chunk.box.extent)
        return Damaged(name, absl::StrCat("its chunk in ", chunk.file, " is of another shape or dtype"));
      ASSIGN_OR_RETURN(const torch::Tensor values, archive->Read(found));
      RETURN_IF_ERROR(RunTorch("reading a tensor", [&] {
        torch::Tensor part = *whole;
        for (size_t dim = 0; dim < chunk.box.begin.size(); ++dim)
          part = part.narrow(static_cast<int64_t>(dim), chunk.box.begin[dim], chunk.box.extent[dim]);
        part.copy_(values);
      }));
    }
    return whole;
  }

 private:
  absl::Status Damaged(const std::string& name, absl::string_view what) const {
    return absl::DataLossError(
        absl::StrCat((folder_ / kTorchDistributedMetadata).string(), ": tensor '", name, "': ", what));
  }

  // {MetadataIndex(fqn, offset): _StorageInfo(relative_path, offset, length)}
  absl::Status ReadPlaces(const PickleValue* data) {
    if (data == nullptr || !data->Is(Kind::kDict)) return Damaged("", "storage_data is missing");
    for (const auto& [key, value] : data->Entries()) {
      const PickleValue* index = StateOf(key, kModule, "MetadataIndex");
      const PickleValue* info = StateOf(value, "torch.distributed.checkpoint.filesystem._StorageInfo");
      const PickleValue* name = index == nullptr ? nullptr : index->Find("fqn");
      if (name == nullptr || !name->Is(Kind::kString) || info == nullptr)
        return Damaged("", "storage_data: found an entry that is no MetadataIndex with its _StorageInfo");
      const PickleValue *file = info->Find("relative_path"), *offset = info->Find("offset"),
                        *length = info->Find("length"), *transforms = info->Find("transform_descriptors");
      if (file == nullptr || !file->Is(Kind::kString) || !IsPlainFileName(file->text) || offset == nullptr ||
          !offset->Is(Kind::kInt) || length == nullptr || !length->Is(Kind::kInt))
        return Damaged(name->text, "its place is not one in a file of the folder");
      if (transforms != nullptr && !transforms->items.empty())
        return absl::InvalidArgumentError(
            absl::StrCat(folder_.string(), ": tensor '", name->text,
                         "' is stored with a transform (compression), which is not read"));
      const PickleValue* begin = index->Find("offset");
      const std::optional<std::vector<int64_t>> at =
          begin == nullptr || begin->Is(Kind::kNone) ? std::vector<int64_t>() : SizeOf(begin);
      if (!at.has_value()) return Damaged(name->text, "the begin of a chunk is no torch.Size");
      places_[{name->text, *at}] = {{}, file->text, offset->integer, length->integer};
    }
    return absl::OkStatus();
  }
  absl::Status ReadTensors(const PickleValue* tensors) {
    if (tensors == nullptr || !tensors->Is(Kind::kDict)) return Damaged("", "state_dict_metadata is missing");
    for (const auto& [key, value] : tensors->Entries()) {
      if (!key->Is(Kind::kString)) return Damaged("", "state_dict_metadata: found a key that is no text");
      const PickleValue* state = StateOf(value, kModule, "TensorStorageMetadata");
      if (state == nullptr) {
        const bool bytes =
            value->Is(Kind::kCall) && value->items[0]->text == absl::StrCat(kModule, "BytesStorageMetadata");
        skipped_.push_back(absl::StrCat(key->text, ": ", bytes ? "a pickled value" : Describe(*value)));
        continue;
      }
      RETURN_IF_ERROR(ReadTensor(key->text, *state));
    }
    return absl::OkStatus();
  }

  absl::Status ReadTensor(const std::string& name, const PickleValue& state) {
    const PickleValue* properties = StateOf(state.Find("properties"), kModule, "TensorProperties");
    const PickleValue* dtype_name =  // of the first of __getstate__'s values
        properties != nullptr && properties->Is(Kind::kTuple) && !properties->items.empty() ? properties->items[0]
                                                                                            : nullptr;
    if (dtype_name == nullptr || !dtype_name->Is(Kind::kGlobal)) return Damaged(name, "its properties are not known");
    const std::optional<torch::ScalarType> dtype =
        DtypeOfPython(std::string(absl::StripPrefix(dtype_name->text, "torch.")));
    if (!dtype.has_value())
      return absl::InvalidArgumentError(
          absl::StrCat(folder_.string(), ": tensor '", name, "' is of ", dtype_name->text, ", which is not read"));
    const std::optional<std::vector<int64_t>> shape = SizeOf(state.Find("size"));
    const PickleValue* chunks = state.Find("chunks");
    if (!shape.has_value() || chunks == nullptr || !chunks->Is(Kind::kList))
      return Damaged(name, "its size or its chunks are missing");
    Stored stored;
    int64_t bytes = kFreeBytes;
    for (const PickleValue* one : chunks->items) {
      const PickleValue* chunk = StateOf(one, kModule, "ChunkStorageMetadata");
      const auto begin = SizeOf(chunk == nullptr ? nullptr : chunk->Find("offsets")),
                 extent = SizeOf(chunk == nullptr ? nullptr : chunk->Find("sizes"));
      if (!begin.has_value() || !extent.has_value() || !IsWithin({*begin, *extent}, *shape))
        return Damaged(name, "a chunk is not within it");
      auto place = places_.find({name, *begin});
      if (place == places_.end()) place = places_.find({name, {}});  // of a tensor that is whole
      if (place == places_.end()) return Damaged(name, "a chunk has no place");
      stored.chunks.push_back(place->second);
      stored.chunks.back().box = {*begin, *extent};
      if (__builtin_add_overflow(bytes, place->second.length * kBytesPerByte, &bytes))
        return Damaged(name, "its chunks are too long");
    }
    RETURN_IF_ERROR(CheckWhole(name, *shape, static_cast<int64_t>(torch::elementSize(*dtype)), bytes, stored));
    tensors_[name] = {*dtype, *shape, name, false};
    stored_[name] = std::move(stored);
    return absl::OkStatus();
  }

  absl::Status CheckWhole(const std::string& name, const std::vector<int64_t>& shape, int64_t element, int64_t allowed,
                          const Stored& stored) const {
    int64_t bytes = element;
    for (const int64_t extent : shape) {
      if (__builtin_mul_overflow(bytes, std::max<int64_t>(extent, 1), &bytes))
        return Damaged(name, "its size overflows");
    }
    if (bytes > allowed) return Damaged(name, "it is larger than its chunks");
    TensorLayout from{.dtype = "", .shape = shape, .pieces = {}}, to = from;
    for (const Chunk& chunk : stored.chunks) from.pieces.push_back({chunk.box, 0});
    to.pieces.push_back({WholeBox(shape), 0});
    if (const absl::Status planned = PlanCopies({{name, from}}, {{name, to}}).status(); !planned.ok())
      return Damaged(name, planned.message());
    return absl::OkStatus();
  }

  // {name: its path in nested dictionaries}
  void MarkNested(const PickleValue& planner) {
    for (const auto& [key, path] : planner.Entries()) {
      const auto found = key->Is(Kind::kString) ? tensors_.find(key->text) : tensors_.end();
      if (found != tensors_.end() && path->Is(Kind::kTuple)) found->second.nested = path->items.size() > 1;
    }
  }

  const std::filesystem::path folder_;
  std::map<std::pair<std::string, std::vector<int64_t>>, Chunk> places_;
  std::map<std::string, Stored> stored_;
};

}  // namespace

OpenedSource OpenTorchDistributedSource(const std::string& folder) {
  auto source = std::make_unique<TorchDistributedSource>(folder);
  RETURN_IF_ERROR(source->Open());
  return source;
}

}  // namespace athanor
