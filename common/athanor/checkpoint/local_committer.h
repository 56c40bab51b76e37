// The committer of programs without the service: ranks of one run that share a file system vote through small files
// beside the shards. A single process needs no vote.
//
// A vote carries the attempt (this start of the run, on all its ranks), the number of ranks and which save of the
// attempt it is for. Rank 0 counts its own attempt's votes only: whatever a killed attempt has left is never counted.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/time/time.h"
#include "athanor/checkpoint/committer.h"
#include "athanor/checkpoint/store/checkpoint_store.h"

namespace athanor {

class LocalCommitter : public CheckpointCommitter {
 public:
  static constexpr absl::Duration kPatience = absl::Seconds(60);
  // `root` as in CheckpointManagerOptions. Rank 0 waits at most `patience` for the others' votes. `attempt`: letters
  // and digits, equal on all ranks and new with each start of the run. Empty: rank 0 draws one and writes it to
  // "<root>/attempt", where the other ranks read it when they vote; it must have been constructed by then.
  LocalCommitter(std::string root, int rank, int world_size, absl::Duration patience = kPatience,
                 std::string attempt = "");
  absl::StatusOr<std::vector<ShardInfo>> CommitShard(int64_t step, const ShardInfo& shard) override;
  absl::Status CommitManifest(const ManifestSummary& summary) override;
  absl::Status ReportEvaluation(const EvaluationSummary& summary) override;  // the manifest has them
  void Abandon(int64_t step, const std::string& reason) override;
  void ReportDamage(int64_t step, const std::string& reason) override;
  bool OwnsRetention() const override { return false; }

 private:
  std::string VoteName(int64_t step, int rank, int64_t save) const;
  absl::Status WriteAttempt();
  absl::Status ReadAttempt(absl::Time deadline);
  absl::Status Vote(int64_t step, const ShardInfo& shard);
  absl::StatusOr<ShardInfo> WaitForVote(int64_t step, int rank, int64_t save, absl::Time deadline) const;
  void RemoveVotes(int64_t step);

  const std::shared_ptr<CheckpointStore> store_;
  const int rank_, world_size_;
  const absl::Duration patience_;
  std::string attempt_;    // "" until it is known; of the constructor and the commit thread
  bool announced_ = true;  // rank 0: the file of the attempt is written, where there has to be one
  std::mutex mutex_;
  std::map<int64_t, std::vector<std::string>> votes_;  // step -> files cast or counted; guarded by mutex_
};

}  // namespace athanor
