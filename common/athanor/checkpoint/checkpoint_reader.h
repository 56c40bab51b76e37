// Reads checkpoints back and believes nothing that a checksum does not cover.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/checkpoint/file_checkpoint_manager.h"
#include "athanor/checkpoint/format/manifest.h"

namespace athanor {

// Complete checkpoints below `root` (a manifest that parses), newest first. A missing root holds none.
absl::StatusOr<std::vector<ResumeCandidate>> ListCheckpoints(const std::string& root);

// The same by name: folders that have a manifest, which is not read.
absl::StatusOr<std::vector<ResumeCandidate>> ListCheckpointFolders(const std::string& root);

// The checkpoint in this folder, whose name tells the step, or the one that a name beside it means: "<root>/latest",
// "<root>/best.pointer" (alias_files.h). INVALID_ARGUMENT for anything else.
absl::StatusOr<ResumeCandidate> CandidateAt(const std::string& folder);

// The manifest in a checkpoint's folder. DATA_LOSS when there is none that parses.
absl::StatusOr<Manifest> ReadManifest(const std::string& directory);

// What the checkpoint says about itself without its tensors: TrainingState::meta.
absl::StatusOr<nlohmann::json> ReadCheckpointMeta(const ResumeCandidate& candidate);

// Whether a tensor of TrainingState::replicated is wanted.
using TensorFilter = std::function<bool(const std::string& name)>;

// Which boxes of a tensor are wanted: these, in TrainingState::sharded, in their order (none: the tensor is left out).
// Nothing: it is wanted whole.
using PartsWanted =
    std::function<std::optional<std::vector<Box>>(const std::string& name, const std::vector<int64_t>& shape)>;

// As FileCheckpointManager::Read(). With `wanted` only those tensors and `meta`; of the files only what holds them is
// read, and checked. With `parts` the same of boxes; format 1 has no parts, its tensors come whole all the same.
absl::StatusOr<RestoredState> ReadCheckpoint(const ResumeCandidate& candidate, int rank, int world_size,
                                             const ProgressCallback& on_bytes = {}, const TensorFilter& wanted = {},
                                             const PartsWanted& parts = {});

// A checkpoint whose manifest is read and whose shards have the sizes that it says, to read its tensors one after the
// other.
class OpenedCheckpoint {
 public:
  virtual ~OpenedCheckpoint() = default;
  virtual const Manifest& manifest() const = 0;
  // As ReadCheckpointBoxes().
  virtual absl::StatusOr<std::vector<torch::Tensor>> Read(const std::vector<WantedBox>& wanted) const = 0;
};
absl::StatusOr<std::unique_ptr<OpenedCheckpoint>> OpenCheckpoint(const ResumeCandidate& candidate,
                                                                 const ProgressCallback& on_bytes = {});

// Parts of tensors, in the order of `wanted`; of the files only the blocks that hold them are read, and checked. Errors
// as ReadCheckpoint(); FAILED_PRECONDITION: its format has no parts.
absl::StatusOr<std::vector<torch::Tensor>> ReadCheckpointBoxes(const ResumeCandidate& candidate,
                                                               const std::vector<WantedBox>& wanted,
                                                               const ProgressCallback& on_bytes = {});

}  // namespace athanor
