#include "worker/trainer/coordinator_committer.h"

#include <utility>

#include "absl/time/clock.h"
#include "worker/trainer/log_line.h"

namespace athanor {

CoordinatorCommitter::CoordinatorCommitter(AgentLink* link, CommitterOptions options)
    : link_(link), options_(std::move(options)) {}

void CoordinatorCommitter::CheckStale(const absl::Status& status) const {
  if (absl::IsFailedPrecondition(status) && options_.on_stale) options_.on_stale(std::string(status.message()));
}

absl::StatusOr<std::vector<ShardInfo>> CoordinatorCommitter::CommitShard(int64_t step, const ShardInfo& shard) {
  absl::StatusOr<std::vector<ShardInfo>> shards = link_->CommitShard(step, shard, absl::Now() + options_.timeout);
  CheckStale(shards.status());
  return shards;
}

absl::Status CoordinatorCommitter::CommitManifest(const ManifestSummary& summary) {
  const absl::Status status = link_->CommitManifest(summary, options_.storage, absl::Now() + options_.timeout);
  CheckStale(status);
  if (status.ok()) LogLine("INFO", "CheckpointCommitted", {{"step", std::to_string(summary.step)}});
  return status;
}

absl::Status CoordinatorCommitter::ReportEvaluation(const EvaluationSummary& summary) {
  const absl::Status status = link_->ReportEvaluation(summary, absl::Now() + options_.timeout);
  CheckStale(status);
  if (status.ok()) LogLine("INFO", "CheckpointEvaluated", {{"step", std::to_string(summary.step)}});
  return status;
}

void CoordinatorCommitter::Abandon(int64_t step, const std::string& reason) {
  LogLine("WARN", "CheckpointAbandoned", {{"step", std::to_string(step)}}, reason);
  CheckStale(link_->AbandonCheckpoint(step, reason, absl::Now() + options_.notice_timeout));
}

void CoordinatorCommitter::ReportDamage(int64_t step, const std::string& reason) {
  LogLine("WARN", "CheckpointDamaged", {{"step", std::to_string(step)}}, reason);
  CheckStale(link_->ReportDamage(step, reason, absl::Now() + options_.notice_timeout));
}

}  // namespace athanor
