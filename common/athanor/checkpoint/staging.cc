#include "athanor/checkpoint/staging.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

constexpr char kPerRankPrefix[] = "rank.";
constexpr char kRankMetaKey[] = "athanor.rank_meta";

struct Source {
  TensorSlot slot;
  torch::Tensor tensor;
};

absl::Status AddSource(const std::string& name, const torch::Tensor& tensor, std::optional<torch::ScalarType> dtype,
                       int64_t& offset, std::vector<Source>& sources) {
  if (!tensor.defined() || tensor.layout() != torch::kStrided)
    return absl::InvalidArgumentError(absl::StrCat("checkpoint: tensor '", name, "' is undefined or not dense"));
  const torch::ScalarType stored = dtype.has_value() && tensor.is_floating_point() ? *dtype : tensor.scalar_type();
  RETURN_IF_ERROR(SafetensorsDtype(stored).status());
  const int64_t bytes = tensor.numel() * static_cast<int64_t>(torch::elementSize(stored));
  sources.push_back({{name, stored, tensor.sizes().vec(), offset, offset + bytes}, tensor.detach()});
  offset += bytes;
  return absl::OkStatus();
}

void Copy(const Source& source, char* to) {
  const size_t bytes = static_cast<size_t>(source.slot.end - source.slot.begin);
  if (bytes == 0) return;
  const torch::Tensor& tensor = source.tensor;
  const bool plain = !tensor.is_conj() && !tensor.is_neg();  // its memory holds its values
  if (plain && tensor.device().is_cpu() && tensor.is_contiguous() && tensor.scalar_type() == source.slot.dtype) {
    std::memcpy(to, tensor.data_ptr(), bytes);
    return;
  }
  torch::from_blob(to, source.slot.shape, torch::TensorOptions().dtype(source.slot.dtype)).copy_(tensor);
}

}  // namespace

std::map<std::string, int> AssignTensors(const TensorMap& replicated, int world_size) {
  std::vector<std::pair<int64_t, std::string>> by_size;
  for (const auto& [name, tensor] : replicated)
    by_size.emplace_back(-static_cast<int64_t>(tensor.defined() ? tensor.nbytes() : 0), name);
  std::sort(by_size.begin(), by_size.end());
  std::vector<int64_t> load(static_cast<size_t>(world_size), 0);
  std::map<std::string, int> assignment;
  for (const auto& [size, name] : by_size) {
    const auto least = std::min_element(load.begin(), load.end());
    *least -= size;
    assignment[name] = static_cast<int>(least - load.begin());
  }
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
  std::vector<Source> sources;
  int64_t offset = 0;
  for (const auto& [name, owner] : assignment_) {
    const bool weights = name.compare(0, 6, "model.") == 0 || name.compare(0, 4, "ema.") == 0;
    if (owner == rank)
      RETURN_IF_ERROR(
          AddSource(name, state.replicated.at(name), weights ? export_dtype : std::nullopt, offset, sources));
  }
  for (const auto& [name, tensor] : state.per_rank)
    RETURN_IF_ERROR(AddSource(kPerRankPrefix + name, tensor, std::nullopt, offset, sources));
  std::vector<TensorSlot> slots;
  for (const Source& source : sources) slots.push_back(source.slot);
  ASSIGN_OR_RETURN(header_, EncodeHeader(slots, {{"format", "pt"}, {kRankMetaKey, state.rank_meta.dump()}}));
  RETURN_IF_ERROR(Reserve(offset));
  data_bytes_ = offset;
  return RunTorch("taking a snapshot", [&] {
    for (const Source& source : sources) Copy(source, arena_.get() + source.slot.begin);
  });
}

}  // namespace athanor
