// A job whose checkpoints cannot be read, for now or for good.
#include <algorithm>

#include "server/core/machine.h"

namespace athanor::core {

// By the user's wish the job begins again. Nothing is deleted.
void Machine::SetAsideCheckpoints(JobEntry& job) {
  job.scratch_generation = job.generation;
  if (auto checkpoints = state.checkpoints.find(job.id); checkpoints != state.checkpoints.end()) {
    for (auto& [step, checkpoint] : checkpoints->second) {
      if (checkpoint.state != CheckpointState::kCommitted) continue;
      MoveCheckpoint(checkpoint, CheckpointTrigger::kDamage);
      checkpoint.note = "set aside: the job was resumed from scratch";
      dirty_.Mark(checkpoint);
    }
  }
  job.best_progress_step = -1;
  PointAliases(job);
  AddEvent(job, "StartsFromScratch", "by request: its checkpoints are set aside and kept");
}

// Its last failure was one of reading, and nothing was committed since.
bool Machine::FailsToRead(const JobEntry& job) const {
  const auto generations = state.generations.find(job.id);
  if (generations == state.generations.end()) return false;
  Generation newest_commit = 0;
  if (const auto it = state.checkpoints.find(job.id); it != state.checkpoints.end()) {
    for (const auto& [step, checkpoint] : it->second) {
      if (checkpoint.state == CheckpointState::kCommitted)
        newest_commit = std::max(newest_commit, checkpoint.generation);
    }
  }
  const auto failed = [](const GenerationEntry& generation) {
    return generation.cause.has_value() &&
           (generation.cause->kind == CauseKind::kStorage || generation.cause->kind == CauseKind::kData);
  };
  return std::any_of(generations->second.upper_bound(newest_commit), generations->second.end(),
                     [&](const auto& one) { return failed(one.second); });
}

}  // namespace athanor::core
