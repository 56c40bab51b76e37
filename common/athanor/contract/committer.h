// The two-phase commit of one checkpoint over the ranks of a job, as the library sees it.
//
// Phase 1: every rank makes its shard durable and votes with CommitShard(). Phase 2: rank 0, once it has every vote,
// writes the manifest and calls CommitManifest(). A checkpoint exists on disk when its manifest does; under the service
// it is *chosen* only when the coordinator's ledger says committed. `LocalCommitter` serves programs without the
// service.
//
// Threads: votes, manifests and evaluations on the commit thread, one checkpoint at a time; Abandon also on the writer
// thread; ReportDamage on the training thread. Implementations are thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace athanor {

struct ShardInfo {
  int rank = 0;
  std::string file;  // name inside the checkpoint's directory
  int64_t bytes = 0;
  uint32_t crc32c = 0;  // of the whole file
  int64_t save = 0;     // which save of its process it is, equal on all ranks; not in the manifest
};

struct ManifestSummary {
  int64_t step = 0;
  int64_t bytes = 0;
  std::map<std::string, double> metrics;  // of the evaluation before it
  bool is_best = false;
  double save_seconds = 0;  // snapshot until now
};

struct EvaluationSummary {
  int64_t step = 0;
  std::map<std::string, double> metrics;
  bool is_best = false;
};

class CheckpointCommitter {
 public:
  virtual ~CheckpointCommitter() = default;
  // Votes. Rank 0 waits for all votes and gets every shard, ordered by rank; the others return at once with nothing.
  // FAILED_PRECONDITION: this generation is over. DEADLINE_EXCEEDED: give this checkpoint up, training goes on.
  // ABORTED and ALREADY_EXISTS: the vote does not count and never will; after any other error it may count.
  virtual absl::StatusOr<std::vector<ShardInfo>> CommitShard(int64_t step, const ShardInfo& shard) = 0;
  // Rank 0, after the manifest is durable.
  virtual absl::Status CommitManifest(const ManifestSummary& summary) = 0;
  // Rank 0: attaches an evaluation's results to a committed step.
  virtual absl::Status ReportEvaluation(const EvaluationSummary& summary) = 0;
  // This rank cannot finish the checkpoint (disk full, …). Nobody waits for it any longer.
  virtual void Abandon(int64_t step, const std::string& reason) = 0;
  // A committed checkpoint that this rank could not read back.
  virtual void ReportDamage(int64_t step, const std::string& reason) = 0;
  // True when somebody else (the coordinator) removes old checkpoints; the library then never deletes.
  virtual bool OwnsRetention() const = 0;
};

}  // namespace athanor
