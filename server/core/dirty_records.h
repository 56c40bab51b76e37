// Entries that a step has changed. Each is written once per step, as it is at the end of the step.
#pragma once

#include <set>
#include <utility>
#include <vector>

#include "server/core/effect.h"

namespace athanor::core {

class DirtyRecords {
 public:
  void Mark(const JobId& job) { jobs_.insert(job); }
  void Mark(const WorkerId& worker) { workers_.insert(worker); }
  void Mark(const GenerationEntry& generation) { MarkGeneration(generation.job, generation.number); }
  void Mark(const CheckpointEntry& checkpoint) { MarkCheckpoint(checkpoint.job, checkpoint.step); }
  void MarkGeneration(const JobId& job, Generation number) { generations_.insert({job, number}); }
  void MarkCheckpoint(const JobId& job, Step step) { checkpoints_.insert({job, step}); }

  // Appends what is still there, with a new version of each job.
  void Flush(ClusterState& state, std::vector<Effect>& effects);

 private:
  std::set<JobId> jobs_;
  std::set<std::pair<JobId, Generation>> generations_;
  std::set<std::pair<JobId, Step>> checkpoints_;
  std::set<WorkerId> workers_;
};

}  // namespace athanor::core
