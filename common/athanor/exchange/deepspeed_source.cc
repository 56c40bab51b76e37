// Folders of DeepSpeed: `latest` names a tag folder. In it are the model's states and, with ZeRO, one file for each
// rank with its partition: flat fp32 weights and the optimizer's flat state. They are cut into parameters by the shapes
// that the model's states list. All of it is pickles, of which data alone is taken.
#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/exchange/sources.h"
#include "athanor/io/pickle_reader.h"
#include "athanor/io/state_dict_archive.h"
#include "athanor/io/tensor_file.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

namespace fs = std::filesystem;
using Kind = PickleValue::Kind;
constexpr size_t kTagLimit = 4096;
constexpr int64_t kMostElements = int64_t{1} << 48;  // so that sums of offsets do not overflow
constexpr char kOptimStates[] = "_mp_rank_00_optim_states.pt";
constexpr char kWeights[] = "";  // the kind of flat tensors that are no slot of the optimizer

const PickleValue* FindPath(const PickleValue* value, std::initializer_list<std::string_view> keys) {
  for (const std::string_view key : keys) {
    if (value == nullptr || !value->Is(Kind::kDict)) return nullptr;
    value = value->Find(key);
  }
  return value;
}

// Of an enumeration's member its value.
int64_t IntegerAt(const PickleValue* value, int64_t otherwise) {
  if (value != nullptr && value->Is(Kind::kCall) && value->items[1]->items.size() == 1)
    value = value->items[1]->items[0];
  return value != nullptr && value->Is(Kind::kInt) ? value->integer : otherwise;
}

// Flat tensors of a kind, one for each group of parameters.
using Groups = std::vector<ArchiveTensor>;

struct RankPart {
  std::string path;
  std::map<std::string, Groups> flat;                             // by kind
  std::map<std::string, Groups> single;                           // slots that are one number for a group: "step"
  std::map<std::string, std::unique_ptr<StateDictArchive>> open;  // by kind, so that each keeps its storage
};

// Where a parameter's elements begin in the groups.
struct Param {
  std::vector<int64_t> shape;
  int64_t elements = 0;
  size_t group = 0;    // stages 1 and 2
  int64_t offset = 0;  // in the group over all ranks; in stage 3 in each rank's part of all groups
};

class DeepSpeedSource : public TensorSource {
 public:
  explicit DeepSpeedSource(fs::path folder) : folder_(std::move(folder)) {
    format_ = TensorFormat::kDeepSpeed;
    of_checkpoint_ = true;
  }

  absl::Status Open() {
    RETURN_IF_ERROR(FindFiles());
    ASSIGN_OR_RETURN(model_, StateDictArchive::Open(model_path_));
    if (ranks_.empty()) return TakeModule(/*all=*/true);
    for (RankPart& rank : ranks_) RETURN_IF_ERROR(OpenRank(rank));
    RETURN_IF_ERROR(PlaceParameters());
    RETURN_IF_ERROR(TakeModule(/*all=*/false));
    TakeShared();
    return absl::OkStatus();
  }

  absl::StatusOr<torch::Tensor> Read(const std::string& name) override {
    if (const auto found = of_model_.find(name); found != of_model_.end()) return model_->Read(found->second);
    const auto& [param, kind] = of_ranks_.at(name);
    const Param& placed = params_.at(param);
    if (ranks_[0].single.contains(kind)) {
      const Groups& groups = ranks_[0].single.at(kind);
      return Archive(0, kind).Read(groups[stage_ == 3 ? 0 : placed.group]);
    }
    return stage_ == 3 ? ReadOfEach(placed, kind) : ReadOfGroup(placed, kind);
  }

 private:
  absl::Status Damaged(absl::string_view what) const {
    return absl::DataLossError(absl::StrCat(folder_.string(), ": ", what));
  }

  absl::Status FindFiles() {
    std::map<int64_t, std::string> by_rank;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder_, error)) {
      const std::string file = entry.path().filename().string();
      absl::string_view rest = file;
      if (!absl::StartsWith(file, "mp_rank_00") && absl::StartsWith(file, "mp_rank_"))
        return absl::InvalidArgumentError(
            absl::StrCat(entry.path().string(), ": found a part of a tensor-parallel model; allowed: one rank of it"));
      const bool model = absl::EndsWith(file, "mp_rank_00_model_states.pt");
      if (model && (model_path_.empty() || file < fs::path(model_path_).filename()))
        model_path_ = entry.path().string();
      absl::ConsumePrefix(&rest, "bf16_");
      int64_t rank = 0;
      if (!absl::ConsumePrefix(&rest, "zero_pp_rank_") || !absl::ConsumeSuffix(&rest, kOptimStates) ||
          !absl::SimpleAtoi(rest, &rank))
        continue;
      by_rank[rank] = entry.path().string();
    }
    if (error) return FileError(error.value(), "cannot list", folder_.string());
    if (model_path_.empty()) return Damaged("found no …mp_rank_00_model_states.pt");
    for (const auto& [rank, path] : by_rank) {
      if (rank != static_cast<int64_t>(ranks_.size()))
        return Damaged(absl::StrCat("the part of rank ", ranks_.size(), " is missing"));
      ranks_.emplace_back().path = path;
    }
    return absl::OkStatus();
  }

  StateDictArchive& Archive(size_t rank, const std::string& kind) { return *ranks_[rank].open.at(kind); }

  absl::Status OpenRank(RankPart& rank) {
    ASSIGN_OR_RETURN(std::unique_ptr<StateDictArchive> archive, StateDictArchive::Open(rank.path));
    const PickleValue* state = archive->root().Find("optimizer_state_dict");
    const int64_t stage = IntegerAt(FindPath(state, {"zero_stage"}), 0);
    if (stage < 1 || stage > 3) return Damaged(absl::StrCat(rank.path, ": found no zero_stage of 1 to 3"));
    if (stage_ != 0 && stage != stage_) return Damaged(absl::StrCat(rank.path, ": is of another ZeRO stage"));
    stage_ = stage;
    const PickleValue* partitions = FindPath(state, {"partition_count"});
    // Of stages 1 and 2 one number for each group.
    if (partitions != nullptr && partitions->Is(Kind::kList) && !partitions->items.empty())
      partitions = partitions->items[0];
    const auto count = static_cast<int64_t>(ranks_.size());
    if (IntegerAt(partitions, count) != count)
      return Damaged(absl::StrCat("has the parts of ", count, " ranks; there were ", partitions->integer));
    const PickleValue* weights = FindPath(state, {stage == 3 ? std::string_view("fp32_flat_groups")
                                                             : std::string_view("single_partition_of_fp32_groups")});
    if (weights == nullptr || !weights->Is(Kind::kList))
      return Damaged(absl::StrCat(rank.path, ": has no fp32 weights"));
    for (const PickleValue* one : weights->items) {
      ASSIGN_OR_RETURN(const std::optional<ArchiveTensor> flat, archive->Describe("weights", *one));
      if (!flat.has_value() || flat->sizes.size() != 1)
        return Damaged(absl::StrCat(rank.path, ": its fp32 weights are no flat tensors"));
      rank.flat[kWeights].push_back(*flat);
    }
    if (&rank == &ranks_.front()) TakePaddings(FindPath(state, {"param_alignment_paddings"}));
    const PickleValue* slots = stage == 3 ? FindPath(state, {"optimizer_state_dict", "state"})
                                          : FindPath(state, {"base_optimizer_state", "state"});
    RETURN_IF_ERROR(TakeSlots(slots, *archive, &rank));
    rank.open[kWeights] = std::move(archive);
    for (const auto* slots_of : {&rank.flat, &rank.single}) {
      for (const auto& [kind, groups] : *slots_of) {
        if (!rank.open.contains(kind)) {
          ASSIGN_OR_RETURN(rank.open[kind], StateDictArchive::Open(rank.path));
        }
      }
    }
    return absl::OkStatus();
  }

  // Elements behind each parameter in its group, by group; of versions that align parameters.
  void TakePaddings(const PickleValue* groups) {
    if (groups == nullptr || !groups->Is(Kind::kList)) return;
    for (const PickleValue* group : groups->items) {
      std::vector<int64_t>& paddings = paddings_.emplace_back();
      for (const PickleValue* padding : group->items)
        paddings.push_back(std::clamp<int64_t>(IntegerAt(padding, 0), 0, kMostElements));
    }
  }

  // {0: {"exp_avg": flat, "step": number}, 1: …}, one for each group. Slots that not all groups have are left out.
  absl::Status TakeSlots(const PickleValue* slots, StateDictArchive& archive, RankPart* rank) {
    const size_t groups = rank->flat[kWeights].size();
    if (slots == nullptr) return absl::OkStatus();
    for (size_t group = 0; group < groups; ++group) {
      for (const auto& [key, state] : slots->Entries()) {
        if (IntegerAt(key, -1) != static_cast<int64_t>(group)) continue;
        for (const auto& [slot, value] : state->Entries()) {
          ASSIGN_OR_RETURN(const std::optional<ArchiveTensor> tensor, archive.Describe("slot", *value));
          if (!tensor.has_value() || !slot->Is(Kind::kString) || slot->text.empty() || tensor->sizes.size() > 1)
            continue;
          Groups& all = (tensor->sizes.empty() ? rank->single : rank->flat)[slot->text];
          if (all.size() == group) all.push_back(*tensor);
        }
      }
    }
    for (auto* kinds : {&rank->flat, &rank->single})
      std::erase_if(*kinds, [&](const auto& one) { return one.second.size() != groups; });
    return absl::OkStatus();
  }

  absl::Status PlaceParameters() {
    const PickleValue* groups = model_->root().Find("param_shapes");
    if (groups == nullptr || !groups->Is(Kind::kList))
      return Damaged(absl::StrCat(model_path_, ": has no param_shapes"));
    int64_t offset = 0;
    size_t entries = 0;  // groups may be one and the same dictionary
    const auto ranks = static_cast<int64_t>(ranks_.size());
    for (size_t group = 0; group < groups->items.size(); ++group) {
      if (stage_ != 3) offset = 0;
      entries += groups->items[group]->items.size() + 1;
      if (stage_ != 3 && group >= ranks_[0].flat.at(kWeights).size())
        return Damaged("has more groups of shapes than of weights");
      if (entries > kMaxTensors) return Damaged(absl::StrCat(model_path_, ": param_shapes has too many entries"));
      size_t index = 0;
      for (const auto& [key, value] : groups->items[group]->Entries()) {
        Param param{.group = group, .offset = offset};
        if (!key->Is(Kind::kString) || !Shape(*value, &param))
          return Damaged(absl::StrCat(model_path_, ": param_shapes: found an entry that is no name and torch.Size"));
        offset += stage_ == 3 ? (param.elements + ranks - 1) / ranks : param.elements + PaddingAfter(group, index++);
        if (offset > kMostElements) return Damaged(absl::StrCat(model_path_, ": param_shapes are too large"));
        const std::string name = key->text;
        params_[name] = std::move(param);
        for (const auto* kinds : {&ranks_[0].flat, &ranks_[0].single}) {
          for (const auto& [kind, flat] : *kinds) {
            const std::string full =
                kind == kWeights ? absl::StrCat("model.", name) : absl::StrCat("optim.", name, ".", kind);
            const bool one = kinds == &ranks_[0].single;
            tensors_[full] = {flat[0].dtype, one ? std::vector<int64_t>() : params_[name].shape, full, false};
            of_ranks_[full] = {name, kind};
          }
        }
      }
    }
    return absl::OkStatus();
  }

  int64_t PaddingAfter(size_t group, size_t index) const {
    return group < paddings_.size() && index < paddings_[group].size() ? paddings_[group][index] : 0;
  }

  static bool Shape(const PickleValue& value, Param* param) {
    const PickleValue* tuple = &value;
    if (value.Is(Kind::kCall) && value.items[0]->text == "torch.Size" && value.items[1]->items.size() == 1)
      tuple = value.items[1]->items[0];
    if ((!tuple->Is(Kind::kTuple) && !tuple->Is(Kind::kList)) || tuple->items.size() > 64) return false;
    param->elements = 1;
    for (const PickleValue* item : tuple->items) {
      if (!item->Is(Kind::kInt) || item->integer < 0 ||
          __builtin_mul_overflow(param->elements, item->integer, &param->elements))
        return false;
      param->shape.push_back(item->integer);
    }
    return param->elements <= kMostElements;
  }

  // What the model's states have themselves: all of it without ZeRO, else buffers and frozen parameters.
  absl::Status TakeModule(bool all) {
    std::map<std::string, decltype(std::declval<ArchiveTensor>().Key())> keys;
    std::map<std::string, bool> buffers;
    if (const PickleValue* names = model_->root().Find("buffer_names"); names != nullptr && names->Is(Kind::kList)) {
      for (const PickleValue* name : names->items) buffers[name->text] = true;
    }
    for (const ArchiveTensor& one : model_->tensors()) {
      absl::string_view name = one.name;
      const bool frozen = stage_ != 3 && absl::ConsumePrefix(&name, "frozen_param_fragments.");
      if (!frozen && !absl::ConsumePrefix(&name, "module.")) continue;
      const std::string bare(name), full = absl::StrCat("model.", bare);
      if ((!all && !frozen && !buffers.contains(bare)) || tensors_.contains(full)) continue;
      tensors_[full] = {one.dtype, one.sizes, full, false};
      of_model_[full] = one;
      keys.emplace(full, one.Key());
    }
    Tie(keys);
    const PickleValue* frozen = model_->root().Find("frozen_param_shapes");
    if (stage_ == 3 && frozen != nullptr && !frozen->Entries().empty())
      return absl::InvalidArgumentError(absl::StrCat(
          folder_.string(), ": has frozen parameters of ZeRO-3, which are not read; allowed: trained ones"));
    if (tensors_.empty()) return Damaged("holds no tensors");
    return absl::OkStatus();
  }

  // {"head.weight": "embedding.weight"}, or a list of such pairs.
  void TakeShared() {
    const PickleValue* shared = model_->root().Find("shared_params");
    if (shared == nullptr) return;
    std::vector<std::pair<const PickleValue*, const PickleValue*>> pairs = shared->Entries();
    for (const PickleValue* pair : shared->Is(Kind::kList) ? shared->items : std::vector<const PickleValue*>()) {
      if (pair->items.size() == 2) pairs.emplace_back(pair->items[0], pair->items[1]);
    }
    for (const auto& [other, first] : pairs) {
      const std::string name = absl::StrCat("model.", other->text), of = absl::StrCat("model.", first->text);
      if (!of_ranks_.contains(of) || tensors_.contains(name)) continue;
      tensors_[name] = tensors_.at(of);
      of_ranks_[name] = of_ranks_.at(of);
    }
  }

  // `count` elements of a flat tensor; OUT_OF_RANGE is the caller's to avoid.
  absl::Status Append(size_t rank, const std::string& kind, size_t group, int64_t begin, int64_t count,
                      std::vector<torch::Tensor>* parts) {
    ArchiveTensor part = ranks_[rank].flat.at(kind)[group];
    int64_t reach = 0;
    if (__builtin_mul_overflow(begin, part.strides[0], &reach) ||
        __builtin_add_overflow(part.offset, reach, &part.offset))
      return Damaged("a partition leaves its storage");
    part.sizes = {count};
    ASSIGN_OR_RETURN(torch::Tensor read, Archive(rank, kind).Read(part));
    parts->push_back(std::move(read));
    return absl::OkStatus();
  }

  absl::StatusOr<const Groups*> GroupsOf(size_t rank, const std::string& kind) const {
    const auto found = ranks_[rank].flat.find(kind);
    if (found == ranks_[rank].flat.end() || found->second.size() != ranks_[0].flat.at(kind).size())
      return Damaged(absl::StrCat(ranks_[rank].path, ": its groups are not those of rank 0"));
    return &found->second;
  }

  // Stages 1 and 2: the ranks' parts of a group, one behind the other, are its parameters, one behind the other.
  absl::StatusOr<torch::Tensor> ReadOfGroup(const Param& param, const std::string& kind) {
    std::vector<torch::Tensor> parts;
    int64_t at = 0, left = param.elements, next = param.offset;
    for (size_t rank = 0; rank < ranks_.size() && left > 0; ++rank) {
      ASSIGN_OR_RETURN(const Groups* groups, GroupsOf(rank, kind));
      const int64_t size = (*groups)[param.group].sizes[0];
      const int64_t begin = next - at, count = std::min(left, size - begin);
      at += size;
      if (count <= 0) continue;
      RETURN_IF_ERROR(Append(rank, kind, param.group, begin, count, &parts));
      left -= count;
      next += count;
    }
    return Joined(param, parts, left);
  }

  // Stage 3: every rank has its part of each parameter, all of the same size; the last ones are padded.
  absl::StatusOr<torch::Tensor> ReadOfEach(const Param& param, const std::string& kind) {
    std::vector<torch::Tensor> parts;
    const auto ranks = static_cast<int64_t>(ranks_.size());
    int64_t left = param.elements;
    for (size_t rank = 0; rank < ranks_.size() && left > 0; ++rank) {
      ASSIGN_OR_RETURN(const Groups* groups, GroupsOf(rank, kind));
      int64_t begin = param.offset, wanted = std::min(left, (param.elements + ranks - 1) / ranks);
      for (size_t group = 0; group < groups->size() && wanted > 0; ++group) {
        const int64_t size = (*groups)[group].sizes[0], count = std::min(wanted, size - begin);
        if (count > 0) {
          RETURN_IF_ERROR(Append(rank, kind, group, begin, count, &parts));
          wanted -= count;
          left -= count;
        }
        begin = std::max<int64_t>(begin + std::max<int64_t>(count, 0) - size, 0);
      }
      if (wanted > 0) break;
    }
    return Joined(param, parts, left);
  }

  absl::StatusOr<torch::Tensor> Joined(const Param& param, const std::vector<torch::Tensor>& parts,
                                       int64_t left) const {
    if (left > 0) return Damaged(absl::StrCat("a parameter lacks ", left, " of its ", param.elements, " elements"));
    return RunTorch("joining a parameter", [&] {
      return parts.empty() ? torch::zeros(param.shape) : torch::cat(parts).reshape(param.shape).contiguous();
    });
  }

  const fs::path folder_;
  std::string model_path_;
  std::unique_ptr<StateDictArchive> model_;
  std::vector<RankPart> ranks_;
  int64_t stage_ = 0;
  std::vector<std::vector<int64_t>> paddings_;
  std::map<std::string, Param> params_;
  std::map<std::string, ArchiveTensor> of_model_;
  std::map<std::string, std::pair<std::string, std::string>> of_ranks_;  // -> parameter, kind
};

// The tag folder that `path` is, or means: "run/", "run/latest", "run/latest.pointer", "run/global_step12".
absl::StatusOr<fs::path> TagFolder(fs::path path) {
  std::error_code error;
  if (!path.has_filename()) path = path.parent_path();
  for (const char* name : {"latest", "latest.pointer"}) {
    if (fs::is_directory(path, error) && fs::is_regular_file(path / name, error)) {
      path /= name;
      break;
    }
  }
  if (fs::is_directory(path, error)) return path;
  if (!fs::exists(path, error) && fs::exists(path.string() + ".pointer", error)) path += ".pointer";
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path.string(), kTagLimit));
  const std::string tag(absl::StripAsciiWhitespace(text));
  if (!IsPlainFileName(tag)) return absl::InvalidArgumentError(absl::StrCat(path.string(), ": names no tag folder"));
  return path.parent_path() / tag;
}

}  // namespace

bool IsDeepSpeedFolder(const std::string& path) {
  const absl::StatusOr<fs::path> folder = TagFolder(path);
  std::error_code error;
  if (!folder.ok()) return false;
  return std::ranges::any_of(fs::directory_iterator(*folder, error), [](const fs::directory_entry& entry) {
    return absl::EndsWith(entry.path().filename().string(), "mp_rank_00_model_states.pt");
  });
}

OpenedSource OpenDeepSpeedSource(const std::string& path) {
  ASSIGN_OR_RETURN(fs::path folder, TagFolder(path));
  auto source = std::make_unique<DeepSpeedSource>(std::move(folder));
  RETURN_IF_ERROR(source->Open());
  return source;
}

}  // namespace athanor
