// Questions about the state that change nothing: names, references, aggregates.
#include <algorithm>

#include "absl/strings/match.h"
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
    all.checkpoint_failures = std::max(all.checkpoint_failures, rank.progress.checkpoint_failures);
    if (all.checkpoint_error.empty()) all.checkpoint_error = rank.progress.checkpoint_error;
  }
  all.rank = -1;
  return all;
}

std::string CheckpointWarning(const ClusterState& state, const JobEntry& job) {
  core::Step newest = -1, before = -1;
  const CheckpointEntry* given_up = nullptr;  // later than the newest
  if (const auto it = state.checkpoints.find(job.id); it != state.checkpoints.end()) {
    for (auto c = it->second.rbegin(); c != it->second.rend() && before < 0; ++c) {
      if (c->second.state == CheckpointState::kCommitted) (newest < 0 ? newest : before) = c->first;
      if (c->second.state == CheckpointState::kAbandoned && newest < 0 && given_up == nullptr) given_up = &c->second;
    }
  }
  const RankProgress progress = AggregateProgress(state, job);
  if (newest >= progress.step) return "";
  const std::string behind =
      newest < 0 ? absl::StrCat("there is no checkpoint of its ", progress.step, " steps")
                 : absl::StrCat("its newest checkpoint is of step ", newest, ", not of ", progress.step);
  const bool over = job.state == JobState::kSucceeded || job.state == JobState::kFailed;
  const bool failed = progress.checkpoint_failures > 0 && (given_up != nullptr || over);
  if (failed) {
    const std::string& why =
        progress.checkpoint_error.empty() && given_up != nullptr ? given_up->note : progress.checkpoint_error;
    return absl::StrCat(behind, ": a later one could not be written: ", why);
  }
  if (LostAllCheckpoints(state, job)) return "none of its checkpoints can be read";
  // Without an error: saves are left out, or wait for their commit.
  constexpr core::Step kIntervals = 3;
  if (!IsFinal(job.state) && before >= 0 && progress.step - newest > kIntervals * (newest - before)) {
    return absl::StrCat(behind, ", more than ", kIntervals, " intervals behind",
                        progress.checkpoint_skipped > 0 ? absl::StrCat("; ", progress.checkpoint_skipped,
                                                                       " were left out for want of time to write")
                                                        : "");
  }
  return "";
}

bool LostAllCheckpoints(const ClusterState& state, const JobEntry& job) {
  const auto it = state.checkpoints.find(job.id);
  if (it == state.checkpoints.end()) return false;
  bool had = false;
  for (const auto& [step, checkpoint] : it->second) {
    if (checkpoint.state == CheckpointState::kCommitted) return false;
    had = had || (checkpoint.state == CheckpointState::kDamaged && checkpoint.generation > job.scratch_generation);
  }
  return had;
}

std::vector<std::string> CoordinatorCore::Explain(const JobId& id, absl::Time now) const {
  std::vector<std::string> chain;
  auto it = state().jobs.find(id);
  if (it == state().jobs.end()) return chain;
  const JobEntry& job = it->second;
  const std::string reason = Reason(id);
  chain.push_back(
      absl::StrCat(id.str(), " is ", ToString(job.state), reason.empty() ? "" : absl::StrCat(": ", reason)));
  const std::string warning = CheckpointWarning(state(), job);
  if (!warning.empty() && !absl::StrContains(reason, warning)) chain.push_back(absl::StrCat("warning: ", warning));
  if (job.state == JobState::kQueued) {
    chain.push_back(absl::StrCat("queued for ", absl::FormatDuration(now - job.queued_at), ", position ",
                                 QueuePosition(id), ", needs ", job.spec.ranks, " x ", job.spec.slots_per_rank, " ",
                                 job.spec.device, " slots at once"));
    for (const auto& [name, worker] : state().workers) {
      if (worker.state == WorkerState::kQuarantined && worker.device == job.spec.device)
        chain.push_back(absl::StrCat(name.str(), " takes no ranks: ", worker.reason));
    }
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
