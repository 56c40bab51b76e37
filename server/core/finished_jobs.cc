#include "server/core/finished_jobs.h"

namespace athanor::core {

void FinishedJobs::Add(const JobId& job, absl::Time ended_at, int64_t bytes) {
  if (by_age_.insert({{ended_at, job}, bytes}).second) bytes_ += bytes;
}

void FinishedJobs::Remove(const JobId& job, absl::Time ended_at) {
  const auto it = by_age_.find({ended_at, job});
  if (it == by_age_.end()) return;
  bytes_ -= it->second;
  by_age_.erase(it);
}

absl::Time FinishedJobs::NextDue(absl::Time now) const {
  if (by_age_.empty()) return absl::InfiniteFuture();
  const bool too_many = static_cast<int64_t>(by_age_.size()) > limits_.jobs || bytes_ > limits_.bytes;
  return too_many ? now : by_age_.begin()->first.first + limits_.age;
}

std::optional<JobId> FinishedJobs::Due(absl::Time now) const {
  return NextDue(now) <= now ? std::optional(by_age_.begin()->first.second) : std::nullopt;
}

int64_t BytesOf(const ClusterState& state, const JobEntry& job) {
  constexpr size_t kNode = 64;  // of a map, and what an allocation costs
  size_t bytes = sizeof(JobEntry) + job.spec.payload.size() + job.reason.size() + 8 * kNode;
  for (const auto& [name, value] : job.spec.labels) bytes += name.size() + value.size() + kNode;
  bytes += job.last_progress.metrics.size() * 2 * kNode + job.aliases.size() * kNode;
  if (job.last_cause.has_value()) bytes += job.last_cause->detail.size() + job.last_cause->log_tail.size();
  if (const auto it = state.generations.find(job.id); it != state.generations.end()) {
    for (const auto& [number, generation] : it->second) {
      bytes += sizeof(GenerationEntry) + kNode + generation.ranks.size() * (sizeof(RankEntry) + kNode);
      if (generation.cause.has_value()) bytes += generation.cause->detail.size() + generation.cause->log_tail.size();
    }
  }
  if (const auto it = state.checkpoints.find(job.id); it != state.checkpoints.end()) {
    for (const auto& [step, checkpoint] : it->second) {
      bytes += sizeof(CheckpointEntry) + kNode + checkpoint.shards.size() * (sizeof(ShardEntry) + 2 * kNode) +
               checkpoint.metrics.size() * 2 * kNode;
    }
  }
  return static_cast<int64_t>(bytes);
}

}  // namespace athanor::core
