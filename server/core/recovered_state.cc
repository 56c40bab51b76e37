#include "server/core/recovered_state.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "server/core/coordinator_core.h"

namespace athanor::core {
namespace {

class Repairer {
 public:
  Repairer(ClusterState& state, absl::Time now) : state_(state), now_(now) {}

  std::vector<Repair> Run() {
    for (auto& [id, job] : state_.jobs) {
      RepairCheckpoints(job);
      EndStrayGenerations(job);
      RepairJob(job);
    }
    RepairWorkers();
    return std::move(repairs_);
  }

 private:
  Repair& Tell(const JobId& job, const std::string& what) {
    repairs_.push_back({job, {}, what, {}, {}});
    return repairs_.back();
  }

  void EndGeneration(GenerationEntry& generation, const std::string& why) {
    generation.state = GenerationState::kFailed;
    generation.ended_at = now_;
    generation.deadline = absl::InfiniteFuture();
    generation.reason = why;
    if (!generation.cause.has_value()) generation.cause = FailureCause{.kind = CauseKind::kOurBug, .detail = why};
    for (RankEntry& rank : generation.ranks) rank.state = RankState::kExited;
    Tell(generation.job, absl::StrCat("generation ", generation.number, " was ended: ", why))
        .generations.push_back(generation.number);
  }

  // Live ones besides the job's own, of a job that has none, or on slots that another holds.
  void EndStrayGenerations(JobEntry& job) {
    auto found = state_.generations.find(job.id);
    if (found == state_.generations.end()) return;
    if (!found->second.empty() && found->second.rbegin()->first > job.generation) {
      Tell(job.id, absl::StrCat("the job's counter of generations stood at ", job.generation));
      job.generation = found->second.rbegin()->first;
    }
    for (auto& [number, generation] : found->second) {
      if (!IsLive(generation.state)) {
        if (generation.ended_at == absl::InfinitePast()) generation.ended_at = generation.created_at;
        continue;
      }
      if (number != job.generation || !NeedsGeneration(job.state)) {
        EndGeneration(generation, "its job is not at it");
      } else if (!TakeSlots(generation)) {
        EndGeneration(generation, "another rank holds one of its slots");
      }
    }
  }

  bool TakeSlots(const GenerationEntry& generation) {
    std::set<std::pair<WorkerId, int32_t>> wanted;
    for (const RankEntry& rank : generation.ranks) {
      if (rank.state == RankState::kExited) continue;
      for (const int32_t slot : rank.placement.slots) {
        const std::pair<WorkerId, int32_t> seat{rank.placement.worker, slot};
        if (taken_.contains(seat) || !wanted.insert(seat).second) return false;
      }
    }
    taken_.insert(wanted.begin(), wanted.end());
    return true;
  }

  void RepairJob(JobEntry& job) {
    const GenerationEntry* generation = CurrentGeneration(state_, job);
    const bool live = generation != nullptr && IsLive(generation->state);
    if (NeedsGeneration(job.state) && !live) {
      const JobState was = job.state;
      job.state = was == JobState::kRunning      ? JobState::kQueued
                  : was == JobState::kSuspending ? JobState::kSuspended
                                                 : JobState::kCancelled;
      job.reason = absl::StrCat("generation ", job.generation, " is not in the store");
      Tell(job.id, absl::StrCat("was ", ToString(was), " without a generation that runs; is ", ToString(job.state)));
    }
    if (IsFinal(job.state) && job.ended_at == absl::InfinitePast()) job.ended_at = now_;
    // Decisions of an earlier clock are due now at the latest.
    const absl::Duration longest = job.spec.restart.backoff_max * (1 + job.spec.restart.backoff_jitter);
    if (job.state == JobState::kBackingOff && job.retry_at > now_ + longest) job.retry_at = now_ + longest;
    job.goodput.accounted_until = std::min(job.goodput.accounted_until, now_);
    job.queued_at = std::min(job.queued_at, now_);
  }

  void RepairCheckpoints(JobEntry& job) {
    auto found = state_.checkpoints.find(job.id);
    auto committed = [&](Step step) {
      if (found == state_.checkpoints.end()) return false;
      auto it = found->second.find(step);
      return it != found->second.end() && it->second.state == CheckpointState::kCommitted;
    };
    Step newest = -1;
    if (found != state_.checkpoints.end()) {
      for (auto& [step, checkpoint] : found->second) {
        const bool complete = static_cast<int32_t>(checkpoint.shards.size()) == checkpoint.shards_expected;
        const bool needs_all =
            checkpoint.state == CheckpointState::kCommitted || checkpoint.state == CheckpointState::kSealed;
        if (needs_all && !complete) {
          checkpoint.state =
              checkpoint.state == CheckpointState::kSealed ? CheckpointState::kAbandoned : CheckpointState::kDamaged;
          checkpoint.note = "its record lacks shards";
          Tell(job.id, absl::StrCat(CheckpointName(step), ": its record lacks shards")).checkpoints.push_back(step);
        }
        if (checkpoint.state == CheckpointState::kCommitted) newest = step;
      }
    }
    std::string dropped;
    for (auto it = job.aliases.begin(); it != job.aliases.end();) {
      if (committed(it->second)) {
        ++it;
        continue;
      }
      absl::StrAppend(&dropped, dropped.empty() ? "" : ", ", "'", it->first, "' (step ", it->second, ")");
      AddLost(job, it->second);
      it = job.aliases.erase(it);
    }
    if (!dropped.empty()) Tell(job.id, absl::StrCat("pointed at no committed checkpoint: ", dropped));
    const auto latest = job.aliases.find("latest");
    if (newest < 0 || (latest != job.aliases.end() && latest->second == newest)) return;
    job.aliases["latest"] = newest;
    if (dropped.empty()) Tell(job.id, absl::StrCat("'latest' points at ", CheckpointName(newest), " now"));
  }

  // A checkpoint without its record counts as one that cannot be read: a job that had one does not begin again by
  // itself.
  void AddLost(const JobEntry& job, Step step) {
    if (step < 0) return;
    auto [it, missing] = state_.checkpoints[job.id].try_emplace(step);
    if (!missing) return;
    CheckpointEntry& lost = it->second;
    lost.job = job.id;
    lost.step = step;
    lost.generation = std::max(1, job.generation);
    lost.state = CheckpointState::kDamaged;
    lost.shards_expected = job.spec.ranks;
    lost.created_at = now_;
    lost.note = "its record was not in the store";
    Tell(job.id, absl::StrCat(CheckpointName(step), ": ", lost.note)).checkpoints.push_back(step);
  }

  // A worker that holds ranks is known, so that its lease decides over them.
  void RepairWorkers() {
    for (const auto& [worker, slot] : taken_) {
      auto [it, fresh] = state_.workers.try_emplace(worker);
      WorkerEntry& entry = it->second;
      if (fresh) {
        entry.id = worker;
        entry.state = WorkerState::kSuspect;
        entry.registered_at = now_;
        entry.reason = "its record was not in the store";
        repairs_.push_back({{}, worker, entry.reason, {}, {}});
      } else if (entry.state == WorkerState::kLost) {
        entry.state = WorkerState::kSuspect;
        entry.reason = "holds ranks of a running job";
        repairs_.push_back({{}, worker, entry.reason, {}, {}});
      }
      entry.slots = std::max(entry.slots, slot + 1);
    }
  }

  ClusterState& state_;
  const absl::Time now_;
  std::set<std::pair<WorkerId, int32_t>> taken_;
  std::vector<Repair> repairs_;
};

}  // namespace

std::vector<Repair> RepairRecovered(ClusterState& state, absl::Time now) {
  return Repairer(state, now).Run();
}

}  // namespace athanor::core
