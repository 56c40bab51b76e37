#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "athanor/base/crc32c.h"
#include "athanor/base/json_text.h"
#include "athanor/checkpoint/alias_files.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/checkpoint/format/manifest.h"
#include "athanor/checkpoint/local_committer.h"
#include "athanor/checkpoint/shard_header.h"
#include "athanor/torch/status.h"
#include "tests/fuzz/reader_checks.h"
#include "tests/fuzz/reader_seeds.h"
#include "tests/fuzz/reader_targets.h"

namespace athanor::fuzz {
namespace {

constexpr auto kNewer = absl::StatusCode::kFailedPrecondition;
constexpr int64_t kStep = 120;

void CheckSame(const Manifest& a, const Manifest& b) {
  Promise(a.format == b.format && a.step == b.step && a.world_size == b.world_size && a.owners == b.owners &&
              a.tensors == b.tensors && a.per_rank == b.per_rank && a.metrics == b.metrics &&
              a.created_at == b.created_at && a.meta == b.meta && a.shards.size() == b.shards.size(),
          "a manifest comes back");
  for (size_t i = 0; i < a.shards.size(); ++i)
    Promise(a.shards[i].file == b.shards[i].file && a.shards[i].bytes == b.shards[i].bytes &&
                a.shards[i].crc32c == b.shards[i].crc32c,
            "and so do its shards");
}

// What was accepted is whole.
void CheckRead(const ResumeCandidate& candidate) {
  for (const int world_size : {1, 2}) {
    const absl::StatusOr<RestoredState> restored = ReadCheckpoint(candidate, world_size - 1, world_size);
    if (!Accepted(restored.status(), candidate.path, {kDataLoss, kNewer, kInvalid})) continue;
    Promise(restored->step == candidate.step, "a checkpoint is of its step");
    Promise(restored->same_world == (restored->world_size == world_size), "the world is compared");
    for (const auto& [name, tensor] : restored->state.replicated) CheckTensor(tensor);
    for (const auto& [name, tensor] : restored->state.per_rank) CheckTensor(tensor);
    Promise(!restored->state.rank_meta.is_discarded() && !restored->state.meta.is_discarded(), "values are values");
  }
}

}  // namespace

void ManifestText(std::string_view input) {
  constexpr char kWhere[] = "some manifest";
  const absl::StatusOr<Manifest> manifest = ParseManifest(kWhere, std::string(input));
  if (!Accepted(manifest.status(), kWhere, {kDataLoss, kNewer})) return;
  Promise(static_cast<int>(manifest->shards.size()) == manifest->world_size, "a shard per rank");
  for (const ShardInfo& shard : manifest->shards) Promise(IsPlainFileName(shard.file), "a shard lies in the folder");
  for (const auto& [name, rank] : manifest->owners) Promise(rank < manifest->world_size, "a tensor lies in a shard");
  for (const auto& [name, tensor] : manifest->tensors) {
    for (const StoredSlice& slice : tensor.slices) {
      Promise(slice.file < manifest->world_size, "a slice lies in a shard");
      Promise(slice.offset + slice.bytes <= manifest->shards[static_cast<size_t>(slice.file)].bytes, "within it");
      Promise(IsWithin(slice.box, tensor.shape), "a slice is a part of its tensor");
    }
  }
  const absl::StatusOr<Manifest> again = ParseManifest(kWhere, EncodeManifest(*manifest));
  Promise(again.ok(), "what was read can be written and read");
  CheckSame(*manifest, *again);
}

void Checkpoint(std::string_view input) {
  static const ResumeCandidate candidate = WriteSampleCheckpoint(ScratchFolder() + "/manifests", kStep);
  Scratch(absl::StrCat("manifests/", CheckpointDirName(kStep), "/", kManifestFile), input);
  CheckRead(candidate);
  const absl::StatusOr<std::vector<ResumeCandidate>> listed = ListCheckpoints(ScratchFolder() + "/manifests");
  Promise(listed.ok(), "a folder with damaged checkpoints can be listed");
  const absl::StatusOr<nlohmann::json> meta = ReadCheckpointMeta(candidate);
  Promise(listed->empty() == !meta.ok(), "what is listed has a manifest");
  (void)Accepted(meta.status(), candidate.path, {kDataLoss, kNewer});
}

void CheckpointShard(std::string_view input) {
  static const ResumeCandidate candidate = WriteSampleCheckpoint(ScratchFolder() + "/shards", kStep);
  Manifest manifest;
  manifest.format = 1;
  manifest.step = kStep;
  const ShardInfo shard = {0, "shard.safetensors", static_cast<int64_t>(input.size()),
                           Crc32c(0, input.data(), input.size())};
  manifest.shards = {shard};
  manifest.owners = {{"model.weight", 0}};
  const std::string folder = absl::StrCat("shards/", CheckpointDirName(kStep), "/");
  const std::string path = Scratch(folder + shard.file, input);
  Scratch(folder + kManifestFile, EncodeManifest(manifest));
  CheckRead(candidate);
  // What the writer of a manifest makes of it.
  Manifest described;
  described.step = kStep;
  const auto reader = StoreAt(ScratchFolder())->Open(folder + shard.file);
  Promise(reader.ok(), "a shard can be opened");
  const absl::StatusOr<ShardBegin> begin = ReadShardBegin(**reader, path);
  if (!Accepted(begin.status(), path, {kDataLoss})) return;
  if (!Accepted(AddShard(shard, *begin, &described), shard.file, {kDataLoss})) return;
  Scratch(folder + kManifestFile, EncodeManifest(described));
  Promise(ReadManifest(candidate.path).ok(), "a described shard makes a manifest that is read");
  CheckRead(candidate);
}

void Vote(std::string_view input) {
  const std::string root = ScratchFolder() + "/votes";
  static const ResumeCandidate candidate = WriteSampleCheckpoint(root, kStep);
  LocalCommitter voter(root, 1, 2, absl::ZeroDuration(), "fuzz"), counter(root, 0, 2, absl::ZeroDuration(), "fuzz");
  static const std::string file = [&] {
    Promise(voter.CommitShard(kStep, {1, "shard.safetensors", 8, 1}).ok(), "a vote can be cast");
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
      const std::string name = std::filesystem::relative(entry.path(), ScratchFolder()).string();
      if (absl::StrContains(name, "/vote-")) return name;
    }
    return std::string();
  }();
  Promise(!file.empty(), "a vote is a file");
  static const std::string shard =
      Scratch(absl::StrCat("votes/", CheckpointDirName(kStep), "/shard.safetensors"), "12345678");
  Scratch(file, input);
  const auto shards = counter.CommitShard(kStep, {0, "shard.safetensors", 8, 1});
  if (Accepted(shards.status(), "rank 1", {absl::StatusCode::kDeadlineExceeded}))
    Promise(shards->size() == 2 && IsPlainFileName((*shards)[1].file), "a vote names a shard of the folder");
}

void Pointer(std::string_view input) {
  const std::string path = Scratch("latest.pointer", input);
  const std::optional<int64_t> step = ReadPointer(path);
  const absl::StatusOr<ResumeCandidate> candidate = CandidateAt(ScratchFolder() + "/latest");
  Promise(candidate.ok() == step.has_value(), "a pointer means a checkpoint or nothing");
  Promise(ReadAliases(ScratchFolder()).count("latest") == (step.has_value() ? 1u : 0u), "and is listed so");
  if (!step.has_value()) return;
  Promise(*step >= 0 && candidate->step == *step, "a step is not negative");
  Promise(PointAlias(ScratchFolder(), "copy", *step).ok(), "it can be written");
  Promise(ReadPointer(ScratchFolder() + "/copy") == step, "and read again");
  // A name from outside is no path.
  const std::string name(input.substr(0, 64));
  (void)CandidateAt(name);
  (void)IsAliasName(name);
}

}  // namespace athanor::fuzz
