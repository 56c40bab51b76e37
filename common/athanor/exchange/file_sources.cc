// Sources of one file, and of Hugging Face folders, which are several.
#include <cstring>
#include <filesystem>
#include <optional>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/checkpoint/shard_header.h"
#include "athanor/exchange/sources.h"
#include "athanor/io/dtype_names.h"
#include "athanor/io/mapped_file.h"
#include "athanor/io/state_dict_archive.h"
#include "athanor/io/state_dict_file.h"
#include "athanor/io/tensor_header.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

constexpr size_t kIndexLimit = 256 << 20;

class SafetensorsSource : public TensorSource {
 public:
  static OpenedSource Open(const std::string& path) {
    ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
    constexpr int64_t kLength = kHeaderLengthBytes;
    const uint64_t length = file.size() < kLength ? 0 : HeaderLength(file.data());
    if (file.size() < kLength || length > static_cast<uint64_t>(kMaxHeaderBytes) ||
        length > static_cast<uint64_t>(file.size() - kLength)) {
      // What it is instead is told by the reader of whole files.
      const absl::Status told = ReadStateDictFile(path).status();
      return told.ok() ? absl::DataLossError(absl::StrCat(path, ": no safetensors file")) : told;
    }
    const auto size = static_cast<int64_t>(length);
    ASSIGN_OR_RETURN(TensorHeader header, DecodeHeader(path, {file.data() + kLength, static_cast<size_t>(size)},
                                                       file.size() - kLength - size));
    auto source = std::unique_ptr<SafetensorsSource>(new SafetensorsSource(path, std::move(file), kLength + size));
    source->of_checkpoint_ = header.metadata.contains(kRankMetaKey);  // a shard of one
    for (TensorSlot& slot : header.slots) {
      source->tensors_[slot.name] = {slot.dtype, slot.shape, slot.name, false};
      source->slots_[slot.name] = std::move(slot);
    }
    return source;
  }

  absl::StatusOr<torch::Tensor> Read(const std::string& name) override {
    const TensorSlot& slot = slots_.at(name);
    return RunTorch(absl::StrCat("reading ", path_), [&] {
      torch::Tensor tensor = torch::empty(slot.shape, torch::TensorOptions().dtype(slot.dtype));
      if (slot.end > slot.begin)
        std::memcpy(tensor.data_ptr(), file_.data() + data_ + slot.begin, static_cast<size_t>(slot.end - slot.begin));
      return slot.dtype == torch::kBool ? tensor.view(torch::kByte).ne(0) : tensor;
    });
  }

 private:
  SafetensorsSource(std::string path, MappedFile file, int64_t data)
      : path_(std::move(path)), file_(std::move(file)), data_(data) {
    format_ = TensorFormat::kSafetensors;
  }
  const std::string path_;
  const MappedFile file_;
  const int64_t data_;
  std::map<std::string, TensorSlot> slots_;
};

class TorchSaveSource : public TensorSource {
 public:
  explicit TorchSaveSource(std::unique_ptr<StateDictArchive> archive) : archive_(std::move(archive)) {
    format_ = TensorFormat::kTorchSave;
    skipped_ = archive_->skipped();
    std::map<std::string, decltype(std::declval<ArchiveTensor>().Key())> keys;
    for (const ArchiveTensor& one : archive_->tensors()) {
      tensors_[one.name] = {one.dtype, one.sizes, one.name, !one.section.empty()};
      found_[one.name] = &one;
      keys.emplace(one.name, one.Key());
    }
    Tie(keys);
  }
  absl::StatusOr<torch::Tensor> Read(const std::string& name) override { return archive_->Read(*found_.at(name)); }

 private:
  std::unique_ptr<StateDictArchive> archive_;
  std::map<std::string, const ArchiveTensor*> found_;
};

class CheckpointSource : public TensorSource {
 public:
  static OpenedSource Open(const std::string& path) {
    ASSIGN_OR_RETURN(const ResumeCandidate candidate, CandidateAt(path));
    auto source = std::make_unique<CheckpointSource>();
    source->format_ = TensorFormat::kCheckpoint;
    source->of_checkpoint_ = true;
    ASSIGN_OR_RETURN(source->opened_, OpenCheckpoint(candidate));
    const Manifest& manifest = source->opened_->manifest();
    if (manifest.format == 1) return OpenFormat1(candidate, std::move(source));
    std::map<std::string, std::pair<int, int64_t>> keys;
    for (const auto& [name, tensor] : manifest.tensors) {
      const std::optional<torch::ScalarType> dtype = DtypeOfSafetensors(tensor.dtype);
      if (!dtype.has_value())
        return absl::DataLossError(absl::StrCat(path, ": tensor '", name, "': unknown dtype '", tensor.dtype, "'"));
      source->tensors_[name] = {*dtype, tensor.shape, name, false};
      if (!tensor.slices.empty() && tensor.slices[0].bytes > 0)
        keys[name] = {tensor.slices[0].file, tensor.slices[0].offset};
    }
    source->Tie(keys);
    return source;
  }

  absl::StatusOr<torch::Tensor> Read(const std::string& name) override {
    if (const auto known = whole_.find(name); known != whole_.end()) return known->second;
    ASSIGN_OR_RETURN(std::vector<torch::Tensor> read, opened_->Read({{name, WholeBox(tensors_.at(name).shape)}}));
    return std::move(read[0]);
  }

 private:
  // A format that says not where in a file a tensor lies: all of it is read.
  static OpenedSource OpenFormat1(const ResumeCandidate& candidate, std::unique_ptr<CheckpointSource> source) {
    ASSIGN_OR_RETURN(RestoredState restored, ReadCheckpoint(candidate, 0, 1));
    source->whole_ = std::move(restored.state.replicated);
    std::map<std::string, const void*> keys;
    for (const auto& [name, tensor] : source->whole_) {
      source->tensors_[name] = {tensor.scalar_type(), tensor.sizes().vec(), name, false};
      if (tensor.numel() > 0) keys[name] = tensor.const_data_ptr();
    }
    source->Tie(keys);
    return source;
  }

  std::unique_ptr<OpenedCheckpoint> opened_;
  TensorMap whole_;
};

// The files of an index, each opened once.
class FolderSource : public TensorSource {
 public:
  static OpenedSource Open(const std::string& folder, const std::map<std::string, std::set<std::string>>& by_file,
                           bool all_names) {
    auto source = std::make_unique<FolderSource>();
    source->format_ = TensorFormat::kHuggingFace;
    for (const auto& [file, names] : by_file) {
      const std::string path = (std::filesystem::path(folder) / file).string();
      ASSIGN_OR_RETURN(std::unique_ptr<TensorSource> opened, OpenTensorSource(path, TensorFormat::kAuto));
      for (const std::string& name : names) {
        if (!opened->tensors().contains(name))
          return absl::DataLossError(absl::StrCat(path, ": has no tensor '", name, "', which the index promises"));
      }
      for (const auto& [name, tensor] : opened->tensors()) {
        if (!all_names && !names.contains(name)) continue;
        source->tensors_[name] = tensor;
        source->holders_[name] = opened.get();
        if (!all_names && !names.contains(tensor.same_as)) source->tensors_[name].same_as = name;
      }
      source->files_.push_back(std::move(opened));
    }
    return source;
  }
  absl::StatusOr<torch::Tensor> Read(const std::string& name) override { return holders_.at(name)->Read(name); }

 private:
  std::vector<std::unique_ptr<TensorSource>> files_;
  std::map<std::string, TensorSource*> holders_;
};

}  // namespace

OpenedSource OpenSafetensorsSource(const std::string& path) {
  return SafetensorsSource::Open(path);
}
OpenedSource OpenCheckpointSource(const std::string& path) {
  return CheckpointSource::Open(path);
}

OpenedSource OpenTorchSaveSource(const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<StateDictArchive> archive, StateDictArchive::Open(path));
  return std::make_unique<TorchSaveSource>(std::move(archive));
}

OpenedSource OpenHuggingFaceSource(const std::string& folder) {
  std::error_code error;
  for (const char* name : {kHuggingFaceIndex, kHuggingFaceTorchIndex}) {
    const std::string path = (std::filesystem::path(folder) / name).string();
    if (!std::filesystem::exists(path, error)) continue;
    ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kIndexLimit));
    const nlohmann::json index = ParseJsonText(text);
    const auto map = index.is_object() ? index.find("weight_map") : index.end();
    if (!index.is_object() || map == index.end() || !map->is_object())
      return absl::DataLossError(absl::StrCat(path, ": weight_map: an object is missing"));
    std::map<std::string, std::set<std::string>> by_file;
    for (const auto& [tensor, file] : map->items()) {
      if (!file.is_string() || !IsPlainFileName(file.get<std::string>()))
        return absl::DataLossError(absl::StrCat(path, ": weight_map: '", tensor, "' is in no plain file"));
      by_file[file.get<std::string>()].insert(tensor);
    }
    return FolderSource::Open(folder, by_file, /*all_names=*/false);
  }
  for (const char* name : {kHuggingFaceFile, kHuggingFaceTorchFile}) {
    if (std::filesystem::exists(std::filesystem::path(folder) / name, error))
      return FolderSource::Open(folder, {{name, {}}}, /*all_names=*/true);
  }
  return absl::NotFoundError(absl::StrCat(folder, ": found neither ", kHuggingFaceIndex, " nor ", kHuggingFaceFile));
}

}  // namespace athanor
