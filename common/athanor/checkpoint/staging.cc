#include "athanor/checkpoint/staging.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/crc32c.h"
#include "athanor/base/status_macros.h"
#include "athanor/io/tied_tensors.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

struct Source {
  ShardTensor stored;
  torch::Tensor tensor;
};

// Divides parts among the ranks that have the same ones: each to the one with the fewest bytes.
class Replicas {
 public:
  explicit Replicas(const TrainingState& state)
      : own_(static_cast<size_t>(state.replica)), load_(static_cast<size_t>(std::max(state.replicas, 1)), 0) {}
  bool Takes(const TensorPart& part) {
    const auto least = std::min_element(load_.begin(), load_.end());
    *least += static_cast<int64_t>(part.values.defined() ? part.values.nbytes() : 0);
    return static_cast<size_t>(least - load_.begin()) == own_;
  }

 private:
  const size_t own_;
  std::vector<int64_t> load_;
};

// A rank's tensors, one behind the other.
class Sources {
 public:
  absl::Status Add(const std::string& name, const torch::Tensor& tensor, std::optional<torch::ScalarType> dtype) {
    RETURN_IF_ERROR(CheckTensorName(name));
    if (!tensor.defined() || tensor.layout() != torch::kStrided)
      return absl::InvalidArgumentError(absl::StrCat("checkpoint: tensor '", name, "' is undefined or not dense"));
    const torch::ScalarType type = dtype.has_value() && tensor.is_floating_point() ? *dtype : tensor.scalar_type();
    RETURN_IF_ERROR(SafetensorsDtype(type).status());
    const int64_t size = tensor.numel() * static_cast<int64_t>(torch::elementSize(type));
    all_.push_back({{.slot = {name, type, tensor.sizes().vec(), bytes_, bytes_ + size}}, tensor.detach()});
    bytes_ += size;
    return absl::OkStatus();
  }
  // Those parts that are this replica's to write.
  absl::Status AddParts(const std::string& name, const ShardedTensor& sharded, Replicas* replicas) {
    for (const TensorPart& part : sharded.parts) {
      if (!replicas->Takes(part)) continue;
      std::string own = name;  // the file has one tensor of a name
      for (int64_t i = 1; !used_.insert(own).second; ++i) own = absl::StrCat(name, "#", i);
      RETURN_IF_ERROR(Add(own, part.values, std::nullopt));
      ShardTensor& stored = all_.back().stored;
      if (own != name) stored.part_of = name;
      stored.shape = sharded.shape;
      stored.begin = part.begin;
      stored.also = sharded.also;
      if (!IsWithin({stored.begin, stored.slot.shape}, stored.shape)) {
        return absl::InvalidArgumentError(
            absl::StrCat("checkpoint: the part of '", name, "' lies outside of its shape"));
      }
    }
    return absl::OkStatus();
  }
  void AddName(const std::string& name) { all_.back().stored.also.push_back(name); }
  std::vector<Source>& all() { return all_; }
  int64_t bytes() const { return bytes_; }

 private:
  std::vector<Source> all_;
  std::set<std::string> used_;  // by parts
  int64_t bytes_ = 0;
};

void Copy(const Source& source, char* to) {
  const size_t bytes = static_cast<size_t>(source.stored.slot.end - source.stored.slot.begin);
  if (bytes == 0) return;
  const torch::Tensor& tensor = source.tensor;
  const bool plain = !tensor.is_conj() && !tensor.is_neg();  // its memory holds its values
  if (plain && tensor.device().is_cpu() && tensor.is_contiguous() && tensor.scalar_type() == source.stored.slot.dtype) {
    std::memcpy(to, tensor.data_ptr(), bytes);
    return;
  }
  torch::from_blob(to, source.stored.slot.shape, torch::TensorOptions().dtype(source.stored.slot.dtype)).copy_(tensor);
}

}  // namespace

std::map<std::string, int> AssignTensors(const TensorMap& replicated, int world_size) {
  const std::map<std::string, std::string> first = FirstNames(replicated);
  std::vector<std::pair<int64_t, std::string>> by_size;
  for (const auto& [name, tensor] : replicated) {
    if (first.at(name) == name)
      by_size.emplace_back(-static_cast<int64_t>(tensor.defined() ? tensor.nbytes() : 0), name);
  }
  std::sort(by_size.begin(), by_size.end());
  std::vector<int64_t> load(static_cast<size_t>(world_size), 0);
  std::map<std::string, int> assignment;
  for (const auto& [size, name] : by_size) {
    const auto least = std::min_element(load.begin(), load.end());
    *least -= size;
    assignment[name] = static_cast<int>(least - load.begin());
  }
  for (const auto& [name, other] : first) assignment[name] = assignment.at(other);
  return assignment;
}

absl::Status StagedShard::Reserve(int64_t bytes) {
  if (bytes <= capacity_) return absl::OkStatus();
  constexpr int64_t kPage = 4096;
  const int64_t rounded = (bytes + kPage - 1) / kPage * kPage;
  arena_.reset(static_cast<char*>(std::aligned_alloc(kPage, static_cast<size_t>(rounded))));
  if (arena_ == nullptr) {
    capacity_ = 0;
    return absl::ResourceExhaustedError(absl::StrCat("no host memory for a snapshot of ", bytes, " bytes"));
  }
  capacity_ = rounded;
  std::memset(arena_.get(), 0, static_cast<size_t>(rounded));  // the pages are touched now, not while training waits
  return absl::OkStatus();
}

absl::Status StagedShard::Fill(const TrainingState& state, int rank, int world_size,
                               std::optional<torch::ScalarType> export_dtype) {
  assignment_ = AssignTensors(state.replicated, world_size);
  std::map<std::string, std::vector<std::string>> names;  // by the first of them
  for (const auto& [name, first] : FirstNames(state.replicated)) names[first].push_back(name);
  Sources sources;
  for (const auto& [first, all] : names) {
    if (assignment_.at(first) != rank) continue;
    const bool weights = absl::StartsWith(first, "model.") || absl::StartsWith(first, "ema.");
    RETURN_IF_ERROR(sources.Add(first, state.replicated.at(first), weights ? export_dtype : std::nullopt));
    for (const std::string& name : all) {
      RETURN_IF_ERROR(CheckTensorName(name));
      if (name != first) sources.AddName(name);
    }
  }
  Replicas replicas(state);
  for (const auto& [name, parts] : state.sharded) RETURN_IF_ERROR(sources.AddParts(name, parts, &replicas));
  for (const auto& [name, tensor] : state.per_rank)
    RETURN_IF_ERROR(sources.Add(kPerRankPrefix + name, tensor, std::nullopt));
  RETURN_IF_ERROR(Reserve(sources.bytes()));
  data_bytes_ = sources.bytes();
  rank_meta_ = state.rank_meta.dump();
  tensors_.clear();
  return RunTorch("taking a snapshot", [&] {
    for (Source& source : sources.all()) {
      Copy(source, arena_.get() + source.stored.slot.begin);
      tensors_.push_back(std::move(source.stored));
    }
  });
}

absl::Status StagedShard::Seal() {
  for (ShardTensor& tensor : tensors_) {
    tensor.crc32c = BlockChecksums(arena_.get() + tensor.slot.begin, tensor.slot.end - tensor.slot.begin);
  }
  ASSIGN_OR_RETURN(header_, EncodeShardHeader(tensors_, rank_meta_));
  return absl::OkStatus();
}

}  // namespace athanor
