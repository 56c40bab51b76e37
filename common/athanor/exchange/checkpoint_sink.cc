// A checkpoint of this library, of one rank. The checksums stand in front of the bytes in a shard, so every tensor is
// looked at once before it is written.
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "athanor/base/crc32c.h"
#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/checkpoint/shard_header.h"
#include "athanor/checkpoint/store/checkpoint_store.h"
#include "athanor/exchange/tensor_sink.h"

namespace athanor {
namespace {

class CheckpointSink : public TensorSink {
 public:
  CheckpointSink(const std::string& root, int64_t step, std::string origin)
      : store_(StoreAt(root)), step_(step), folder_(CheckpointDirName(step) + "/"), origin_(std::move(origin)) {}
  bool keeps_ties() const override { return true; }
  bool measures() const override { return true; }

  absl::Status Begin(const std::vector<StateDictEntry>& tensors) override {
    const std::string manifest = folder_ + kManifestFile;
    ASSIGN_OR_RETURN(const bool taken, Exists(*store_, manifest));
    if (taken)
      return absl::AlreadyExistsError(absl::StrCat(store_->Describe(manifest), ": there is a checkpoint already"));
    place_.assign(tensors.size(), 0);
    for (size_t i = 0; i < tensors.size(); ++i) {
      RETURN_IF_ERROR(CheckTensorName(tensors[i].name));
      if (tensors[i].same_as != i) {
        stored_[place_[tensors[i].same_as]].also.push_back(tensors[i].name);
        continue;
      }
      place_[i] = stored_.size();
      ShardTensor& one = stored_.emplace_back();
      one.slot.name = tensors[i].name;
      one.slot.dtype = tensors[i].dtype;
      one.slot.shape = tensors[i].shape;
    }
    return absl::OkStatus();
  }

  absl::Status Measure(size_t index, const torch::Tensor& tensor) override {
    ShardTensor& one = stored_[place_[index]];
    const auto size = static_cast<int64_t>(tensor.nbytes());
    one.slot.begin = data_bytes_;
    one.slot.end = data_bytes_ += size;
    one.crc32c = Checksums(tensor);
    return absl::OkStatus();
  }

  absl::Status Add(size_t index, const torch::Tensor& tensor) override {
    if (out_ == nullptr) RETURN_IF_ERROR(BeginShard());
    const ShardTensor& one = stored_[place_[index]];
    if (Checksums(tensor) != one.crc32c)
      return absl::DataLossError(absl::StrCat(origin_, ": tensor '", one.slot.name, "' has changed while it was read"));
    return Append(tensor.const_data_ptr(), tensor.nbytes());
  }

  absl::Status Finish() override {
    RETURN_IF_ERROR(out_->Commit());
    Manifest manifest;
    manifest.step = step_;
    manifest.meta = {{"model_only", true}, {"imported", {{"from", origin_}}}};
    manifest.created_at = absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone());
    ASSIGN_OR_RETURN(const std::unique_ptr<StoreReader> reader, store_->Open(folder_ + shard_.file));
    ASSIGN_OR_RETURN(const ShardBegin begin, ReadShardBegin(*reader, store_->Describe(folder_ + shard_.file)));
    RETURN_IF_ERROR(AddShard(shard_, begin, &manifest));
    return store_->Put(folder_ + kManifestFile, EncodeManifest(manifest));
  }

 private:
  static std::vector<uint32_t> Checksums(const torch::Tensor& tensor) {
    return BlockChecksums(tensor.const_data_ptr(), static_cast<int64_t>(tensor.nbytes()));
  }

  absl::Status BeginShard() {
    ASSIGN_OR_RETURN(const std::string header, EncodeShardHeader(stored_, "{}"));
    shard_.file = ShardFileName(0, 1, "imported");
    shard_.bytes = static_cast<int64_t>(header.size()) + data_bytes_;
    ASSIGN_OR_RETURN(out_, store_->NewWriter(folder_ + shard_.file));
    return Append(header.data(), header.size());
  }

  absl::Status Append(const void* data, size_t size) {
    shard_.crc32c = Crc32c(shard_.crc32c, data, size);
    return out_->Append(data, size);
  }

  const std::shared_ptr<CheckpointStore> store_;
  const int64_t step_;
  const std::string folder_, origin_;
  std::vector<ShardTensor> stored_;
  std::vector<size_t> place_;  // of each tensor in stored_
  int64_t data_bytes_ = 0;
  std::unique_ptr<StoreWriter> out_;
  ShardInfo shard_;
};

}  // namespace

std::unique_ptr<TensorSink> NewCheckpointSink(const std::string& root, int64_t step, const std::string& origin) {
  return std::make_unique<CheckpointSink>(root, step, origin);
}

}  // namespace athanor
