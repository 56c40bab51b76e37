// Questions about the state that change nothing: names, references, aggregates.
#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "server/core/coordinator_core.h"

namespace athanor::core {

bool IsFinal(JobState state) {
  return state == JobState::kSucceeded || state == JobState::kFailed || state == JobState::kCancelled;
}

std::string CheckpointName(core::Step step) {
  return absl::StrFormat("step-%012d", step);
}

absl::StatusOr<JobId> ResolveJob(const ClusterState& state, const std::string& reference) {
  if (JobId id(reference); state.jobs.contains(id)) return id;
  // Ids are "<name>-<suffix>": every job of that name stands in one stretch of the ordered map.
  std::vector<JobId> live, all;
  for (auto it = state.jobs.lower_bound(JobId(reference + "-"));
       it != state.jobs.end() && absl::StartsWith(it->first.str(), reference); ++it) {
    if (it->second.spec.name != reference) continue;
    all.push_back(it->first);
    if (!IsFinal(it->second.state)) live.push_back(it->first);
  }
  const std::vector<JobId>& candidates = live.empty() ? all : live;
  if (candidates.size() == 1) return candidates[0];
  if (candidates.empty()) return absl::NotFoundError(absl::StrCat("no job '", reference, "'"));
  constexpr size_t kShown = 5;
  std::vector<std::string> shown;
  for (size_t i = 0; i < std::min(kShown, candidates.size()); ++i) shown.push_back(candidates[i].str());
  return absl::FailedPreconditionError(absl::StrCat("'", reference, "' names ", candidates.size(),
                                                    " jobs: ", absl::StrJoin(shown, ", "),
                                                    candidates.size() > kShown ? ", …" : "", "; use an id"));
}

absl::StatusOr<core::Step> ResolveCheckpoint(const ClusterState& state, const JobId& job,
                                             const std::string& reference) {
  auto entry = state.jobs.find(job);
  if (entry == state.jobs.end()) return absl::NotFoundError(absl::StrCat("no job '", job.str(), "'"));
  core::Step step = -1;
  if (auto alias = entry->second.aliases.find(reference); alias != entry->second.aliases.end()) {
    step = alias->second;
  } else if (!absl::SimpleAtoi(absl::StripPrefix(reference, "step-"), &step) || step < 0) {
    return absl::NotFoundError(
        absl::StrCat(job.str(), " has no checkpoint '", reference, "': give a step, an alias or a tag"));
  }
  auto checkpoints = state.checkpoints.find(job);
  if (checkpoints == state.checkpoints.end() || !checkpoints->second.contains(step)) {
    return absl::NotFoundError(absl::StrCat(job.str(), " has no checkpoint of step ", step));
  }
  return step;
}

const GenerationEntry* CurrentGeneration(const ClusterState& state, const JobEntry& job) {
  auto generations = state.generations.find(job.id);
  if (generations == state.generations.end()) return nullptr;
  auto it = generations->second.find(job.generation);
  return it == generations->second.end() ? nullptr : &it->second;
}

RankProgress AggregateProgress(const ClusterState& state, const JobEntry& job) {
  const GenerationEntry* generation = CurrentGeneration(state, job);
  if (generation == nullptr || generation->ranks.empty() || generation->training_at == absl::InfinitePast())
    return job.last_progress;
  RankProgress all = generation->ranks[0].progress;
  if (all.step == 0 && job.last_progress.step > 0) return job.last_progress;
  all.samples = 0;
  all.samples_per_second = 0;
  for (const RankEntry& rank : generation->ranks) {
    all.step = std::min(all.step, rank.progress.step);
    all.samples += rank.progress.samples;
    all.samples_per_second += rank.progress.samples_per_second;
    all.step_seconds = std::max(all.step_seconds, rank.progress.step_seconds);
    all.nonfinite_losses = std::max(all.nonfinite_losses, rank.progress.nonfinite_losses);
    if (all.checkpoint_error.empty()) all.checkpoint_error = rank.progress.checkpoint_error;
  }
  all.rank = -1;
  return all;
}

std::vector<std::string> CoordinatorCore::Explain(const JobId& id, absl::Time now) const {
  std::vector<std::string> chain;
  auto it = state().jobs.find(id);
  if (it == state().jobs.end()) return chain;
  const JobEntry& job = it->second;
  chain.push_back(
      absl::StrCat(id.str(), " is ", ToString(job.state), job.reason.empty() ? "" : absl::StrCat(": ", job.reason)));
  if (job.state == JobState::kQueued) {
    chain.push_back(absl::StrCat("queued for ", absl::FormatDuration(now - job.queued_at), ", position ",
                                 QueuePosition(id), ", needs ", job.spec.ranks, " x ", job.spec.slots_per_rank, " ",
                                 job.spec.device, " slots at once"));
  }
  if (job.state == JobState::kBackingOff)
    chain.push_back(absl::StrCat("starts again in ", absl::FormatDuration(job.retry_at - now)));
  auto generations = state().generations.find(id);
  if (generations == state().generations.end()) return chain;
  constexpr int kShown = 8;
  int shown = 0;
  for (auto g = generations->second.rbegin(); g != generations->second.rend() && shown < kShown; ++g, ++shown) {
    const GenerationEntry& generation = g->second;
    std::string text =
        absl::StrCat("generation ", generation.number, " is ", ToString(generation.state), "; started from ",
                     generation.resume_step >= 0 ? CheckpointName(generation.resume_step) : "scratch");
    if (!generation.reason.empty()) absl::StrAppend(&text, "; ", generation.reason);
    chain.push_back(std::move(text));
    if (!generation.cause.has_value()) continue;
    const FailureCause& cause = *generation.cause;
    chain.push_back(absl::StrCat(
        "  first failure: ", cause.rank >= 0 ? absl::StrCat("rank ", cause.rank, " on ", cause.worker.str(), ", ") : "",
        ToString(cause.kind), cause.signal != 0 ? absl::StrCat(" (signal ", cause.signal, ")") : "",
        cause.exit_code != 0 ? absl::StrCat(" (exit code ", cause.exit_code, ")") : "", ": ", cause.detail));
    if (shown == 0 || g == generations->second.rbegin()) {
      if (!cause.log_tail.empty()) chain.push_back(absl::StrCat("  its last lines:\n", cause.log_tail));
    }
  }
  return chain;
}

}  // namespace athanor::core
