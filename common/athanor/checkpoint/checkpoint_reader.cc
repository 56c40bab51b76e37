#include "athanor/checkpoint/checkpoint_reader.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/crc32c.h"
#include "athanor/base/file_system.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/storage_id.h"
#include "athanor/checkpoint/alias_files.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/checkpoint/format/manifest.h"
#include "athanor/io/mapped_file.h"
#include "athanor/io/tensor_file.h"

namespace athanor {
namespace {

constexpr size_t kManifestLimit = 256 << 20;
constexpr char kPerRankPrefix[] = "rank.";
constexpr char kRankMetaKey[] = "athanor.rank_meta";

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

uint32_t Checksum(const MappedFile& file, const ProgressCallback& on_bytes) {
  constexpr int64_t kChunk = 16 << 20;
  uint32_t crc = 0;
  for (int64_t at = 0; at < file.size(); at += kChunk) {
    const int64_t size = std::min(kChunk, file.size() - at);
    crc = Crc32c(crc, file.data() + at, static_cast<size_t>(size));
    if (on_bytes) on_bytes("reading a checkpoint", size);
  }
  return crc;
}

absl::StatusOr<TensorFile> ReadShard(const ResumeCandidate& candidate, const ShardInfo& shard,
                                     const ProgressCallback& on_bytes) {
  const std::string path = absl::StrCat(candidate.path, "/", shard.file);
  absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return Judge(candidate, file.status());
  if (file->size() != shard.bytes) {
    return absl::DataLossError(
        absl::StrCat(path, ": ends at offset ", file->size(), ", the manifest says ", shard.bytes, " bytes"));
  }
  const uint32_t crc = Checksum(*file, on_bytes);
  if (crc != shard.crc32c) {
    return absl::DataLossError(absl::StrFormat("%s: bytes 0 to %d have CRC32C %08x, the manifest says %08x", path,
                                               file->size(), crc, shard.crc32c));
  }
  return ParseTensorFile(path, file->data(), file->size());
}

absl::Status TakePerRank(const std::string& path, const TensorFile& file, RestoredState& restored) {
  const size_t prefix = sizeof kPerRankPrefix - 1;
  for (const auto& [name, tensor] : file.tensors) {
    if (name.compare(0, prefix, kPerRankPrefix) == 0) restored.state.per_rank[name.substr(prefix)] = tensor;
  }
  const auto meta = file.metadata.find(kRankMetaKey);
  if (meta == file.metadata.end()) return absl::OkStatus();
  restored.state.rank_meta = ParseJsonText(meta->second);
  if (!restored.state.rank_meta.is_discarded()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(path, ": ", kRankMetaKey, " is not JSON"));
}

}  // namespace

absl::StatusOr<Manifest> ReadManifest(const std::string& directory) {
  const std::string path = absl::StrCat(directory, "/", kManifestFile);
  absl::StatusOr<std::string> text = ReadFile(path, kManifestLimit);
  if (!text.ok()) return absl::DataLossError(std::string(text.status().message()));
  return ParseManifest(path, *text);
}

absl::StatusOr<std::vector<ResumeCandidate>> ListCheckpoints(const std::string& root) {
  ASSIGN_OR_RETURN(std::vector<ResumeCandidate> found, ListCheckpointFolders(root));
  std::erase_if(found, [](const ResumeCandidate& candidate) { return !ReadManifest(candidate.path).ok(); });
  return found;
}

absl::StatusOr<std::vector<ResumeCandidate>> ListCheckpointFolders(const std::string& root) {
  std::vector<ResumeCandidate> found;
  std::error_code error;
  if (!std::filesystem::exists(root, error)) return found;
  for (const auto& entry : std::filesystem::directory_iterator(root, error)) {
    const std::optional<int64_t> step = StepOfDirName(entry.path().filename().string());
    if (!step.has_value()) continue;
    std::error_code unknown;  // what cannot be looked at now is for its reader to judge
    if (std::filesystem::exists(entry.path() / kManifestFile, unknown) || unknown)
      found.push_back({*step, entry.path().string(), false});
  }
  if (error) return FileError(error.value(), "cannot list", root);
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
                                             const ProgressCallback& on_bytes) {
  const std::string path = absl::StrCat(candidate.path, "/", kManifestFile);
  const absl::StatusOr<std::string> text = ReadFile(path, kManifestLimit);
  if (!text.ok())
    return absl::IsInvalidArgument(text.status()) ? absl::DataLossError(text.status().message())
                                                  : Judge(candidate, text.status());
  ASSIGN_OR_RETURN(Manifest manifest, ParseManifest(path, *text));
  if (manifest.step != candidate.step) {
    return absl::DataLossError(
        absl::StrCat(candidate.path, "/", kManifestFile, ": is of step ", manifest.step, ", not ", candidate.step));
  }
  RestoredState restored;
  restored.step = manifest.step;
  restored.world_size = manifest.world_size;
  restored.same_world = manifest.world_size == world_size;
  restored.state.meta = std::move(manifest.meta);
  restored.metrics = std::move(manifest.metrics);
  for (const ShardInfo& shard : manifest.shards) {
    ASSIGN_OR_RETURN(TensorFile file, ReadShard(candidate, shard, on_bytes));
    for (const auto& [name, owner] : manifest.tensors) {
      if (owner != shard.rank) continue;
      auto it = file.tensors.find(name);
      if (it == file.tensors.end())
        return absl::DataLossError(
            absl::StrCat(candidate.path, "/", shard.file, ": the tensor '", name, "' is missing"));
      restored.state.replicated[name] = it->second;
    }
    if (restored.same_world && shard.rank == rank)
      RETURN_IF_ERROR(TakePerRank(absl::StrCat(candidate.path, "/", shard.file), file, restored));
  }
  return restored;
}

}  // namespace athanor
