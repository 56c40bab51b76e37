#include "server/core/invariants.h"

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "server/core/coordinator_core.h"

namespace athanor::core {
namespace {

template <typename... Parts>
absl::Status Breach(const Parts&... parts) {
  return absl::InternalError(absl::StrCat("invariant broken: ", parts...));
}

absl::Status CheckGenerations(const ClusterState& state, const JobEntry& job) {
  bool live = false;
  if (auto it = state.generations.find(job.id); it != state.generations.end()) {
    for (const auto& [number, generation] : it->second) {
      if (!IsLive(generation.state)) continue;
      if (number != job.generation)
        return Breach(job.id.str(), " has the live generation ", number, " besides its newest ", job.generation);
      live = true;
    }
  }
  if (live != NeedsGeneration(job.state))
    return Breach(job.id.str(), " is ", ToString(job.state), live ? " with" : " without", " a live generation");
  return absl::OkStatus();
}

absl::Status CheckSlots(const ClusterState& state) {
  std::map<WorkerId, std::map<int32_t, RankRef>> expected;
  for (const auto& [job, generations] : state.generations) {
    for (const auto& [number, generation] : generations) {
      if (!IsLive(generation.state)) continue;
      for (const RankEntry& rank : generation.ranks) {
        if (rank.state == RankState::kExited) continue;
        for (int32_t slot : rank.placement.slots) {
          const RankRef ref{job, number, rank.placement.rank};
          if (!expected[rank.placement.worker].emplace(slot, ref).second)
            return Breach("slot ", slot, " of ", rank.placement.worker.str(), " holds two ranks");
        }
      }
    }
  }
  for (const auto& [id, worker] : state.workers) {
    if (worker.used != expected[id])
      return Breach("the slots in use of ", id.str(), " are not those of the live generations");
    if (worker.state == WorkerState::kLost && !worker.used.empty())
      return Breach("the lost worker ", id.str(), " holds ranks");
  }
  return absl::OkStatus();
}

absl::Status CheckCheckpoints(const ClusterState& state, const JobEntry& job) {
  Step newest = -1;
  auto it = state.checkpoints.find(job.id);
  if (it != state.checkpoints.end()) {
    for (const auto& [step, checkpoint] : it->second) {
      if (checkpoint.state == CheckpointState::kCommitted) newest = step;
      const bool complete = static_cast<int32_t>(checkpoint.shards.size()) == checkpoint.shards_expected;
      if ((checkpoint.state == CheckpointState::kCommitted || checkpoint.state == CheckpointState::kSealed) &&
          !complete) {
        return Breach(CheckpointName(step), " of ", job.id.str(), " is ", ToString(checkpoint.state),
                      " without all shards");
      }
    }
  }
  for (const auto& [name, step] : job.aliases) {
    const bool there = it != state.checkpoints.end() && it->second.contains(step) &&
                       it->second.at(step).state == CheckpointState::kCommitted;
    if (!there) return Breach("'", name, "' of ", job.id.str(), " points at step ", step, ", which is not committed");
  }
  auto latest = job.aliases.find("latest");
  if (newest >= 0 && (latest == job.aliases.end() || latest->second != newest))
    return Breach("'latest' of ", job.id.str(), " is not ", newest);
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckInvariants(const ClusterState& state) {
  for (const auto& [id, job] : state.jobs) {
    RETURN_IF_ERROR(CheckGenerations(state, job));
    RETURN_IF_ERROR(CheckCheckpoints(state, job));
    if (IsFinal(job.state) && job.ended_at == absl::InfinitePast())
      return Breach(id.str(), " is over without an end time");
  }
  return CheckSlots(state);
}

}  // namespace athanor::core
