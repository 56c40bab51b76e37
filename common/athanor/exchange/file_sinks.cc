// Sinks of one file, and Hugging Face folders, which are several.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/exchange/sources.h"
#include "athanor/exchange/tensor_sink.h"
#include "athanor/io/tensor_file.h"

namespace athanor {
namespace {

int64_t BytesOf(const StateDictEntry& entry) {
  auto bytes = static_cast<int64_t>(torch::elementSize(entry.dtype));
  for (const int64_t extent : entry.shape) bytes *= extent;
  return bytes;
}

absl::StatusOr<AtomicFile> BeginSafetensors(const std::string& path, const StateDictEntry* begin,
                                            const StateDictEntry* end) {
  std::vector<TensorSlot> slots;
  int64_t offset = 0;
  for (const StateDictEntry* one = begin; one != end; ++one) {
    RETURN_IF_ERROR(CheckTensorName(one->name));
    slots.push_back({one->name, one->dtype, one->shape, offset, offset + BytesOf(*one)});
    offset = slots.back().end;
  }
  ASSIGN_OR_RETURN(const std::string header, EncodeHeader(slots, {{"format", "pt"}}));
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  RETURN_IF_ERROR(file.Append(header.data(), header.size()));
  return file;
}

class SafetensorsSink : public TensorSink {
 public:
  explicit SafetensorsSink(std::string path) : path_(std::move(path)) {}
  absl::Status Begin(const std::vector<StateDictEntry>& tensors) override {
    ASSIGN_OR_RETURN(AtomicFile file, BeginSafetensors(path_, tensors.data(), tensors.data() + tensors.size()));
    file_.emplace(std::move(file));
    return absl::OkStatus();
  }
  absl::Status Add(size_t /*index*/, const torch::Tensor& tensor) override {
    return file_->Append(tensor.const_data_ptr(), tensor.nbytes());
  }
  absl::Status Finish() override { return file_->Commit(); }

 private:
  const std::string path_;
  std::optional<AtomicFile> file_;
};

class TorchSaveSink : public TensorSink {
 public:
  explicit TorchSaveSink(std::string path) : path_(std::move(path)) {}
  bool keeps_ties() const override { return true; }
  absl::Status Begin(const std::vector<StateDictEntry>& tensors) override {
    ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path_));
    file_.emplace(std::move(file));
    out_.emplace([this](const void* data, size_t size) { return file_->Append(data, size); });
    return out_->BeginDictionary(tensors);
  }
  absl::Status Add(size_t index, const torch::Tensor& tensor) override { return out_->Add(index, tensor); }
  absl::Status Finish() override {
    RETURN_IF_ERROR(out_->Finish());
    return file_->Commit();
  }

 private:
  const std::string path_;
  std::optional<AtomicFile> file_;
  std::optional<StateDictStream> out_;
};

class HuggingFaceSink : public TensorSink {
 public:
  HuggingFaceSink(std::string folder, int64_t max_shard_bytes)
      : folder_(std::move(folder)), max_shard_bytes_(max_shard_bytes) {}

  absl::Status Begin(const std::vector<StateDictEntry>& tensors) override {
    RETURN_IF_ERROR(EnsureDir(folder_.string()));
    std::error_code error;
    for (const auto& file : std::filesystem::directory_iterator(folder_, error)) {
      const std::string name = file.path().filename().string();
      if (absl::EndsWith(name, ".safetensors") || name == kHuggingFaceIndex)
        return absl::AlreadyExistsError(absl::StrCat(file.path().string(), ": there is a model already"));
    }
    tensors_ = tensors;
    int64_t in_shard = 0;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const int64_t bytes = BytesOf(tensors_[i]);
      if (i == 0 || (in_shard > 0 && in_shard + bytes > max_shard_bytes_)) {
        begins_.push_back(i);
        in_shard = 0;
      }
      in_shard += bytes;
    }
    return absl::OkStatus();
  }

  absl::Status Add(size_t index, const torch::Tensor& tensor) override {
    if (shard_ < begins_.size() && index == begins_[shard_]) {
      RETURN_IF_ERROR(Commit());
      const size_t end = shard_ + 1 < begins_.size() ? begins_[shard_ + 1] : tensors_.size();
      ASSIGN_OR_RETURN(AtomicFile file, BeginSafetensors((folder_ / FileOf(shard_)).string(), tensors_.data() + index,
                                                         tensors_.data() + end));
      file_ = std::make_unique<AtomicFile>(std::move(file));
      ++shard_;
    }
    map_[tensors_[index].name] = FileOf(shard_ - 1);
    total_ += static_cast<int64_t>(tensor.nbytes());
    return file_->Append(tensor.const_data_ptr(), tensor.nbytes());
  }

  absl::Status Finish() override {
    RETURN_IF_ERROR(Commit());
    if (begins_.size() == 1) return absl::OkStatus();
    const nlohmann::json index = {{"metadata", {{"total_size", total_}}}, {"weight_map", map_}};
    return WriteFileAtomically((folder_ / kHuggingFaceIndex).string(), index.dump(2) + "\n");
  }

 private:
  std::string FileOf(size_t shard) const {
    if (begins_.size() == 1) return kHuggingFaceFile;
    return absl::StrFormat("model-%05d-of-%05d.safetensors", shard + 1, begins_.size());
  }
  absl::Status Commit() {
    const std::unique_ptr<AtomicFile> done = std::move(file_);
    return done == nullptr ? absl::OkStatus() : done->Commit();
  }

  const std::filesystem::path folder_;
  const int64_t max_shard_bytes_;
  std::vector<StateDictEntry> tensors_;
  std::vector<size_t> begins_;  // first tensor of each shard
  size_t shard_ = 0;            // the next one
  std::unique_ptr<AtomicFile> file_;
  std::map<std::string, std::string> map_;
  int64_t total_ = 0;
};

}  // namespace

std::unique_ptr<TensorSink> NewSafetensorsSink(const std::string& path) {
  return std::make_unique<SafetensorsSink>(path);
}
std::unique_ptr<TensorSink> NewTorchSaveSink(const std::string& path) {
  return std::make_unique<TorchSaveSink>(path);
}
std::unique_ptr<TensorSink> NewHuggingFaceSink(const std::string& folder, int64_t max_shard_bytes) {
  return std::make_unique<HuggingFaceSink>(folder, max_shard_bytes);
}

}  // namespace athanor
