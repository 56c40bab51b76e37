#include "athanor/checkpoint/checkpoint_reader.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/storage_id.h"
#include "athanor/checkpoint/alias_files.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/checkpoint/format/manifest.h"
#include "athanor/checkpoint/format1_reader.h"
#include "athanor/checkpoint/shard_header.h"
#include "athanor/checkpoint/slice_reader.h"
#include "athanor/checkpoint/store/checkpoint_store.h"

namespace athanor {
namespace {

constexpr int64_t kManifestLimit = 256 << 20;

// A checkpoint's folder in the store around it.
struct Place {
  std::shared_ptr<CheckpointStore> store;
  std::string folder;  // "step-000000000120/"
};

Place PlaceOf(const std::string& directory) {
  std::filesystem::path path(directory);
  if (!path.has_filename()) path = path.parent_path();
  const std::string root = path.has_parent_path() ? path.parent_path().string() : ".";
  return {StoreAt(root), path.filename().string() + "/"};
}

// What an error of opening a checkpoint's file says about the checkpoint. The storage must be there before a missing
// file counts as damage; a refusal or a lack of descriptors says nothing about it at all.
absl::Status Judge(const ResumeCandidate& candidate, const absl::Status& error) {
  const std::string message(error.message());
  if (absl::IsPermissionDenied(error) || absl::IsResourceExhausted(error)) return StorageUnavailable(message);
  const std::filesystem::path folder = std::filesystem::path(candidate.path).parent_path();
  const std::string root = folder.parent_path().string();
  std::error_code ignored;
  // A checkpoint of before ids were kept, or of no service: the folder above it tells.
  if (candidate.storage.empty() && (std::filesystem::is_directory(folder, ignored) || ReadStorageId(root).ok()))
    return absl::DataLossError(message);
  const absl::Status there = CheckStorage(root, candidate.storage);
  return there.ok() ? absl::DataLossError(message)
                    : StorageUnavailable(absl::StrCat(message, "; ", std::string(there.message())));
}

// Sizes first: they cost next to nothing, and tell of files that are cut or gone.
absl::Status CheckSizes(const ResumeCandidate& candidate, const Place& place, const Manifest& manifest) {
  for (const ShardInfo& shard : manifest.shards) {
    const absl::StatusOr<int64_t> size = place.store->Size(place.folder + shard.file);
    if (!size.ok()) return Judge(candidate, size.status());
    if (*size == shard.bytes) continue;
    return absl::DataLossError(absl::StrCat(place.store->Describe(place.folder + shard.file), ": ends at offset ",
                                            *size, ", the manifest says ", shard.bytes, " bytes"));
  }
  return absl::OkStatus();
}

absl::Status ReadRankMeta(const ShardSource& source, int rank, RestoredState* restored) {
  const std::string name = source.folder + source.manifest.shards[static_cast<size_t>(rank)].file;
  const std::string path = source.store.Describe(name);
  const absl::StatusOr<std::unique_ptr<StoreReader>> reader = source.store.Open(name);
  if (!reader.ok()) return source.Judge(reader.status());
  const absl::StatusOr<ShardBegin> begun = ReadShardBegin(**reader, path);
  if (!begun.ok()) return absl::IsDataLoss(begun.status()) ? begun.status() : source.Judge(begun.status());
  const ShardBegin& begin = *begun;
  const ShardHeader& said = source.manifest.headers[static_cast<size_t>(rank)];
  if (begin.place.bytes != said.bytes || begin.place.crc32c != said.crc32c) {
    return absl::DataLossError(absl::StrFormat("%s: bytes 0 to %d have CRC32C %08x, the manifest says %08x of %d", path,
                                               begin.place.bytes, begin.place.crc32c, said.crc32c, said.bytes));
  }
  const auto meta = begin.header.metadata.find(kRankMetaKey);
  if (meta == begin.header.metadata.end()) return absl::OkStatus();
  restored->state.rank_meta = ParseJsonText(meta->second);
  if (!restored->state.rank_meta.is_discarded()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(path, ": ", kRankMetaKey, " is not JSON"));
}

// Takes those of `tensors` out of which only parts are wanted.
absl::Status ReadParts(const ShardSource& source, const PartsWanted& parts, StoredTensors* tensors,
                       std::map<std::string, ShardedTensor>* sharded) {
  StoredTensors divided;
  std::vector<WantedBox> wanted;
  for (auto at = tensors->begin(); at != tensors->end();) {
    const std::optional<std::vector<Box>> boxes = parts(at->first, at->second.shape);
    if (!boxes.has_value()) {
      ++at;
      continue;
    }
    for (const Box& box : *boxes) wanted.push_back({at->first, box});
    if (!boxes->empty()) (*sharded)[at->first].shape = at->second.shape;
    divided.insert(*at);
    at = tensors->erase(at);
  }
  ASSIGN_OR_RETURN(const std::vector<torch::Tensor> read, ReadBoxes(source, divided, wanted));
  for (size_t i = 0; i < wanted.size(); ++i) (*sharded)[wanted[i].name].parts.push_back({read[i], wanted[i].box.begin});
  return absl::OkStatus();
}

absl::Status ReadFormat2(const ShardSource& source, int rank, const TensorFilter& wanted, const PartsWanted& parts,
                         RestoredState* restored) {
  StoredTensors tensors = source.manifest.tensors;
  if (wanted != nullptr) std::erase_if(tensors, [&](const auto& one) { return !wanted(one.first); });
  if (parts != nullptr) RETURN_IF_ERROR(ReadParts(source, parts, &tensors, &restored->state.sharded));
  ASSIGN_OR_RETURN(restored->state.replicated, ReadTensors(source, tensors));
  if (!restored->same_world || wanted != nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(restored->state.per_rank, ReadTensors(source, source.manifest.per_rank[static_cast<size_t>(rank)]));
  return ReadRankMeta(source, rank, restored);
}

absl::StatusOr<Manifest> ReadChecked(const ResumeCandidate& candidate, const Place& place) {
  const std::string path = place.store->Describe(place.folder + kManifestFile);
  const absl::StatusOr<std::string> text = ReadAll(*place.store, place.folder + kManifestFile, kManifestLimit);
  if (!text.ok())
    return absl::IsInvalidArgument(text.status()) ? absl::DataLossError(text.status().message())
                                                  : Judge(candidate, text.status());
  ASSIGN_OR_RETURN(Manifest manifest, ParseManifest(path, *text));
  if (manifest.step != candidate.step)
    return absl::DataLossError(absl::StrCat(path, ": is of step ", manifest.step, ", not ", candidate.step));
  RETURN_IF_ERROR(CheckSizes(candidate, place, manifest));
  return manifest;
}

class Opened : public OpenedCheckpoint {
 public:
  Opened(ResumeCandidate candidate, Place place, Manifest manifest, ProgressCallback on_bytes)
      : candidate_(std::move(candidate)),
        place_(std::move(place)),
        manifest_(std::move(manifest)),
        on_bytes_(std::move(on_bytes)) {}
  const Manifest& manifest() const override { return manifest_; }
  absl::StatusOr<std::vector<torch::Tensor>> Read(const std::vector<WantedBox>& wanted) const override {
    if (manifest_.format == 1) {
      return absl::FailedPreconditionError(absl::StrCat(place_.store->Describe(place_.folder + kManifestFile),
                                                        ": has format 1; parts are read from format 2 on"));
    }
    const ShardSource source{*place_.store, place_.folder, manifest_, on_bytes_,
                             [this](const absl::Status& error) { return Judge(candidate_, error); }};
    return ReadBoxes(source, manifest_.tensors, wanted);
  }

 private:
  const ResumeCandidate candidate_;
  const Place place_;
  const Manifest manifest_;
  const ProgressCallback on_bytes_;
};

}  // namespace

absl::StatusOr<Manifest> ReadManifest(const std::string& directory) {
  const Place place = PlaceOf(directory);
  const absl::StatusOr<std::string> text = ReadAll(*place.store, place.folder + kManifestFile, kManifestLimit);
  if (!text.ok()) return absl::DataLossError(std::string(text.status().message()));
  return ParseManifest(place.store->Describe(place.folder + kManifestFile), *text);
}

absl::StatusOr<std::vector<ResumeCandidate>> ListCheckpoints(const std::string& root) {
  ASSIGN_OR_RETURN(std::vector<ResumeCandidate> found, ListCheckpointFolders(root));
  std::erase_if(found, [](const ResumeCandidate& candidate) { return !ReadManifest(candidate.path).ok(); });
  return found;
}

absl::StatusOr<std::vector<ResumeCandidate>> ListCheckpointFolders(const std::string& root) {
  std::vector<ResumeCandidate> found;
  const std::shared_ptr<CheckpointStore> store = StoreAt(root);
  ASSIGN_OR_RETURN(const std::vector<std::string> names, store->List(""));
  for (const std::string& name : names) {
    const std::optional<int64_t> step = StepOfDirName(std::string(absl::StripSuffix(name, "/")));
    if (!step.has_value()) continue;
    // What cannot be looked at now is for its reader to judge.
    if (Exists(*store, absl::StrCat(CheckpointDirName(*step), "/", kManifestFile)).value_or(true))
      found.push_back({*step, store->Describe(CheckpointDirName(*step)), false});
  }
  std::sort(found.begin(), found.end(),
            [](const ResumeCandidate& a, const ResumeCandidate& b) { return a.step > b.step; });
  return found;
}

absl::StatusOr<ResumeCandidate> CandidateAt(const std::string& folder) {
  std::filesystem::path path(folder);
  if (!path.has_filename()) path = path.parent_path();  // "a/step-000000000010/"
  const std::optional<int64_t> step = StepOfDirName(path.filename().string());
  if (step.has_value()) return ResumeCandidate{.step = *step, .path = path.string()};
  if (const std::optional<int64_t> named = ReadPointer(path.string()); named.has_value()) {
    return ResumeCandidate{.step = *named, .path = (path.parent_path() / CheckpointDirName(*named)).string()};
  }
  return absl::InvalidArgumentError(absl::StrCat("'", folder, "'; allowed: the folder of a checkpoint, such as ",
                                                 CheckpointDirName(120), ", or its name, such as latest"));
}

absl::StatusOr<nlohmann::json> ReadCheckpointMeta(const ResumeCandidate& candidate) {
  ASSIGN_OR_RETURN(Manifest manifest, ReadManifest(candidate.path));
  return std::move(manifest.meta);
}

absl::StatusOr<RestoredState> ReadCheckpoint(const ResumeCandidate& candidate, int rank, int world_size,
                                             const ProgressCallback& on_bytes, const TensorFilter& wanted,
                                             const PartsWanted& parts) {
  const Place place = PlaceOf(candidate.path);
  ASSIGN_OR_RETURN(Manifest manifest, ReadChecked(candidate, place));
  RestoredState restored;
  restored.step = manifest.step;
  restored.world_size = manifest.world_size;
  restored.same_world = manifest.world_size == world_size;
  restored.metrics = manifest.metrics;
  const ShardSource source{*place.store, place.folder, manifest, on_bytes,
                           [&](const absl::Status& error) { return Judge(candidate, error); }};
  if (manifest.format == 1) {
    RETURN_IF_ERROR(ReadFormat1(source, rank, &restored));
    if (wanted != nullptr)
      std::erase_if(restored.state.replicated, [&](const auto& one) { return !wanted(one.first); });
  } else {
    RETURN_IF_ERROR(ReadFormat2(source, rank, wanted, parts, &restored));
  }
  restored.state.meta = std::move(manifest.meta);
  return restored;
}

absl::StatusOr<std::unique_ptr<OpenedCheckpoint>> OpenCheckpoint(const ResumeCandidate& candidate,
                                                                 const ProgressCallback& on_bytes) {
  const Place place = PlaceOf(candidate.path);
  ASSIGN_OR_RETURN(Manifest manifest, ReadChecked(candidate, place));
  return std::make_unique<Opened>(candidate, place, std::move(manifest), on_bytes);
}

absl::StatusOr<std::vector<torch::Tensor>> ReadCheckpointBoxes(const ResumeCandidate& candidate,
                                                               const std::vector<WantedBox>& wanted,
                                                               const ProgressCallback& on_bytes) {
  ASSIGN_OR_RETURN(const std::unique_ptr<OpenedCheckpoint> opened, OpenCheckpoint(candidate, on_bytes));
  return opened->Read(wanted);
}

}  // namespace athanor
