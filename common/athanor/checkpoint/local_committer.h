// The committer of programs without the service: ranks of one run that share a file system vote through small files
// beside the shards. A single process needs no vote.
#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "athanor/checkpoint/committer.h"

namespace athanor {

class LocalCommitter : public CheckpointCommitter {
 public:
  // `root` as in CheckpointManagerOptions. Rank 0 waits at most `patience` for the others' votes.
  LocalCommitter(std::string root, int rank, int world_size, absl::Duration patience = absl::Seconds(60));
  absl::StatusOr<std::vector<ShardInfo>> CommitShard(int64_t step, const ShardInfo& shard) override;
  absl::Status CommitManifest(const ManifestSummary& summary) override;
  void Abandon(int64_t step, const std::string& reason) override;
  void ReportDamage(int64_t step, const std::string& reason) override;
  bool OwnsRetention() const override { return false; }

 private:
  std::string VotePath(int64_t step, int rank) const;
  absl::StatusOr<ShardInfo> WaitForVote(int64_t step, int rank, absl::Time deadline) const;
  const std::string root_;
  const int rank_, world_size_;
  const absl::Duration patience_;
};

}  // namespace athanor
