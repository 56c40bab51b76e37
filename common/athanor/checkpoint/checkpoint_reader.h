// Reads checkpoints back and believes nothing that a checksum does not cover.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/checkpoint/file_checkpoint_manager.h"

namespace athanor {

// Complete checkpoints below `root` (a manifest that parses), newest first. A missing root holds none.
absl::StatusOr<std::vector<ResumeCandidate>> ListCheckpoints(const std::string& root);

// The checkpoint in this folder, whose name tells the step. INVALID_ARGUMENT for another name.
absl::StatusOr<ResumeCandidate> CandidateAt(const std::string& folder);

// As FileCheckpointManager::Read().
absl::StatusOr<RestoredState> ReadCheckpoint(const ResumeCandidate& candidate, int rank, int world_size);

}  // namespace athanor
