// The coordinator's ledger as the library's CheckpointCommitter. Waits while the coordinator is away, up to a deadline;
// training goes on meanwhile. FAILED_PRECONDITION means that this generation is over and goes to `on_stale`.
//
// Threads: as CheckpointCommitter.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "athanor/contract/committer.h"
#include "worker/trainer/agent_link.h"

namespace athanor {

struct CommitterOptions {
  absl::Duration timeout = absl::Minutes(5);         // of a vote and of the commit
  absl::Duration notice_timeout = absl::Seconds(5);  // of Abandon() and ReportDamage(), which nobody waits for
  std::function<void(const std::string& reason)> on_stale;
  std::string storage;  // id of the storage that the checkpoints go to; empty: unknown
};

class CoordinatorCommitter : public CheckpointCommitter {
 public:
  // `link` outlives this object.
  CoordinatorCommitter(AgentLink* link, CommitterOptions options);

  absl::StatusOr<std::vector<ShardInfo>> CommitShard(int64_t step, const ShardInfo& shard) override;
  absl::Status CommitManifest(const ManifestSummary& summary) override;
  absl::Status ReportEvaluation(const EvaluationSummary& summary) override;
  void Abandon(int64_t step, const std::string& reason) override;
  void ReportDamage(int64_t step, const std::string& reason) override;
  bool OwnsRetention() const override { return true; }

 private:
  void CheckStale(const absl::Status& status) const;

  AgentLink* const link_;
  const CommitterOptions options_;
};

}  // namespace athanor
