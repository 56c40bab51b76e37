// Questions about the state that change nothing: names, references, aggregates.
#include <algorithm>
#include <limits>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "athanor/base/near_names.h"
#include "server/core/coordinator_core.h"
#include "server/core/duration_text.h"

namespace athanor::core {

bool IsFinal(JobState state) {
  return state == JobState::kSucceeded || state == JobState::kFailed || state == JobState::kCancelled;
}

std::string CheckpointName(core::Step step) {
  return absl::StrFormat("step-%012d", step);
}

namespace {

constexpr size_t kShown = 5;

// Jobs of this name, newest first, those that are not over before the others.
std::vector<const JobEntry*> JobsNamed(const ClusterState& state, const std::string& name) {
  std::vector<const JobEntry*> found;
  // Ids are "<name>-<suffix>": every job of that name stands in one stretch of the ordered map.
  for (auto it = state.jobs.lower_bound(JobId(name + "-"));
       it != state.jobs.end() && absl::StartsWith(it->first.str(), name); ++it) {
    if (it->second.spec.name == name) found.push_back(&it->second);
  }
  std::sort(found.begin(), found.end(), [](const JobEntry* a, const JobEntry* b) {
    if (IsFinal(a->state) != IsFinal(b->state)) return !IsFinal(a->state);
    return a->submit_order > b->submit_order;
  });
  return found;
}

std::string Listed(const std::vector<const JobEntry*>& jobs) {
  std::string text;
  for (size_t i = 0; i < std::min(kShown, jobs.size()); ++i)
    absl::StrAppend(&text, i == 0 ? "" : ", ", jobs[i]->id.str(), " (", absl::AsciiStrToLower(ToString(jobs[i]->state)),
                    ")");
  return absl::StrCat(text, jobs.size() > kShown ? ", ..." : "");
}

absl::Status NoSuchJob(const ClusterState& state, const std::string& reference) {
  constexpr size_t kCompared = 2000;  // comparing costs; a cluster with more jobs gets no suggestion from the others
  std::set<std::string> names;
  std::vector<std::string> known;
  for (const auto& [id, job] : state.jobs) {
    if (known.size() >= kCompared) break;
    if (names.insert(job.spec.name).second) known.push_back(job.spec.name);
    known.push_back(id.str());
  }
  const std::string near = NearestName(reference, known);
  return absl::NotFoundError(
      absl::StrCat("no job '", reference, "'", near.empty() ? "" : absl::StrCat(", did you mean '", near, "'?")));
}

}  // namespace

absl::StatusOr<JobId> ResolveJob(const ClusterState& state, const std::string& reference, AmbiguousName rule) {
  if (JobId id(reference); state.jobs.contains(id)) return id;
  const std::vector<const JobEntry*> found = JobsNamed(state, reference);
  if (found.empty()) return NoSuchJob(state, reference);
  const auto live = static_cast<size_t>(
      std::count_if(found.begin(), found.end(), [](const JobEntry* job) { return !IsFinal(job->state); }));
  const bool clear = live == 1 || found.size() == 1;
  const bool take = rule == AmbiguousName::kTakeNewest || (rule == AmbiguousName::kTakeNewestLive && live > 0);
  if (clear || take) return found[0]->id;
  return absl::FailedPreconditionError(
      absl::StrCat("'", reference, "' names ", found.size(), " jobs: ", Listed(found), "; use an id"));
}

std::string StartOf(const JobEntry& job, core::Step resume_step) {
  if (resume_step >= 0) return CheckpointName(resume_step);
  if (!job.parent.str().empty())
    return absl::StrCat("step 0, with weights of ", CheckpointName(job.parent_step), " of ", job.parent.str());
  return "step 0";
}

absl::Status NoSuchWorker(const ClusterState& state, const WorkerId& worker) {
  std::vector<std::string> known;
  for (const auto& [id, entry] : state.workers) known.push_back(id.str());
  const std::string near = NearestName(worker.str(), known);
  return absl::NotFoundError(
      absl::StrCat("no worker '", worker.str(), "'", near.empty() ? "" : absl::StrCat(", did you mean '", near, "'?")));
}

std::string AmbiguityNote(const ClusterState& state, const std::string& reference, const JobId& taken) {
  if (taken.str() == reference) return "";
  const std::vector<const JobEntry*> found = JobsNamed(state, reference);
  if (found.size() < 2) return "";
  return absl::StrCat("'", reference, "' names ", found.size(), " jobs: ", Listed(found), "; took ", taken.str());
}

std::optional<Step> StepOf(const std::string& reference) {
  const absl::string_view digits = absl::StripPrefix(reference, "step-");
  core::Step step = -1;
  const bool looks = !digits.empty() && digits.find_first_not_of("0123456789") == absl::string_view::npos;
  if (!looks) return std::nullopt;
  return absl::SimpleAtoi(digits, &step) ? step : std::numeric_limits<core::Step>::max();
}

absl::Status CheckTag(const std::string& tag) {
  if (StepOf(tag).has_value())
    return absl::InvalidArgumentError(
        absl::StrCat("tag: '", tag, "' looks like a step; allowed: a name such as release-1"));
  if (tag == "latest" || tag == "best")
    return absl::InvalidArgumentError(absl::StrCat("tag: '", tag, "' is moved by the service only; choose another"));
  if (tag == "none" || tag == "scratch")
    return absl::InvalidArgumentError(absl::StrCat("tag: '", tag, "' stands for no checkpoint; choose another"));
  return absl::OkStatus();
}

absl::StatusOr<core::Step> ResolveCheckpoint(const ClusterState& state, const JobId& job,
                                             const std::string& reference) {
  auto entry = state.jobs.find(job);
  if (entry == state.jobs.end()) return absl::NotFoundError(absl::StrCat("no job '", job.str(), "'"));
  const auto checkpoints = state.checkpoints.find(job);
  const auto alias = entry->second.aliases.find(reference);
  const std::optional<core::Step> named = StepOf(reference);
  const bool there =
      checkpoints != state.checkpoints.end() &&
      checkpoints->second.contains(named.value_or(alias == entry->second.aliases.end() ? -1 : alias->second));
  if (named.has_value()) {
    if (there) return *named;
    // Tags of an earlier version may look like steps. What reads like a step never stands for another one.
    const std::string tagged =
        alias == entry->second.aliases.end()
            ? ""
            : absl::StrCat("; the tag '", reference, "' points at ", CheckpointName(alias->second));
    return absl::NotFoundError(absl::StrCat(job.str(), " has no checkpoint of step ", *named, tagged));
  }
  if (alias != entry->second.aliases.end()) {
    if (there) return alias->second;
    return absl::NotFoundError(absl::StrCat(job.str(), " has no checkpoint of step ", alias->second));
  }
  std::vector<std::string> names;
  for (const auto& [name, step] : entry->second.aliases) names.push_back(name);
  const std::string near = NearestName(reference, names);
  return absl::NotFoundError(absl::StrCat(job.str(), " has no checkpoint '", reference, "'",
                                          near.empty() ? "" : absl::StrCat(", did you mean '", near, "'?"),
                                          "; allowed: a step", names.empty() ? "" : ", ", absl::StrJoin(names, ", ")));
}

Step NewestCommitted(const ClusterState& state, const JobId& job) {
  const auto checkpoints = state.checkpoints.find(job);
  if (checkpoints == state.checkpoints.end()) return -1;
  for (auto it = checkpoints->second.rbegin(); it != checkpoints->second.rend(); ++it) {
    if (it->second.state == CheckpointState::kCommitted) return it->first;
  }
  return -1;
}

const GenerationEntry* CurrentGeneration(const ClusterState& state, const JobEntry& job) {
  auto generations = state.generations.find(job.id);
  if (generations == state.generations.end()) return nullptr;
  auto it = generations->second.find(job.generation);
  return it == generations->second.end() ? nullptr : &it->second;
}

RankProgress AggregateProgress(const ClusterState& state, const JobEntry& job) {
  const GenerationEntry* generation = CurrentGeneration(state, job);
  // Of a job that is over the ranks' own reports are kept in part only.
  if (IsFinal(job.state) || generation == nullptr || generation->ranks.empty() ||
      generation->training_at == absl::InfinitePast())
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

namespace {

std::string In(absl::Time at, absl::Time now) {
  return absl::FormatDuration(std::max(absl::ZeroDuration(), absl::Trunc(at - now, absl::Milliseconds(100))));
}

// "rank 0 on w1, rank 3 on w2 and 5 more" of those that `wanted` picks; empty: none.
template <typename Wanted>
std::string Ranks(const GenerationEntry& generation, Wanted wanted) {
  constexpr size_t kShown = 8;
  std::vector<std::string> names;
  size_t more = 0;
  for (const RankEntry& rank : generation.ranks) {
    if (!wanted(rank)) continue;
    if (names.size() < kShown)
      names.push_back(absl::StrCat("rank ", rank.placement.rank, " on ", rank.placement.worker.str()));
    else
      ++more;
  }
  return absl::StrCat(absl::StrJoin(names, ", "), more > 0 ? absl::StrCat(" and ", more, " more") : "");
}

// What a live generation waits for, and until when.
std::vector<std::string> WaitsFor(const ClusterState& state, const JobEntry& job, const GenerationEntry& generation,
                                  absl::Time now) {
  std::vector<std::string> lines;
  const auto runs = [](const RankEntry& rank) { return rank.state != RankState::kExited; };
  if (generation.state == GenerationState::kStopping) {
    lines.push_back(absl::StrCat("waits for the end of ", Ranks(generation, runs), ": killed again in ",
                                 In(generation.deadline, now), ", given up in ", In(generation.stop_limit, now)));
  } else if (generation.state != GenerationState::kTraining) {
    const std::string missing =
        Ranks(generation, [](const RankEntry& rank) { return rank.state != RankState::kJoined; });
    lines.push_back(absl::StrCat("waits for ", missing, " to join; fails in ", In(generation.deadline, now)));
  }
  for (const auto& [id, worker] : state.workers) {
    if (worker.state == WorkerState::kLost || (worker.session != 0 && worker.state != WorkerState::kSuspect)) continue;
    const std::string there =
        Ranks(generation, [&](const RankEntry& rank) { return runs(rank) && rank.placement.worker == id; });
    if (there.empty()) continue;
    lines.push_back(
        absl::StrCat("no contact with ", id.str(), " for ", In(now, worker.last_heartbeat), ": ", there,
                     job.spec.fencing == Fencing::kStrict ? " end when its lease does" : " may go on training",
                     "; counted as lost in ", In(worker.lease_until, now)));
  }
  return lines;
}

}  // namespace

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
    chain.push_back(absl::StrCat("queued for ", DurationText(now - job.queued_at), ", position ", QueuePosition(id),
                                 ", needs ", job.spec.ranks, " x ", job.spec.slots_per_rank, " ", job.spec.device,
                                 " slots at once"));
    for (const auto& [name, worker] : state().workers) {
      if (worker.state == WorkerState::kQuarantined && worker.device == job.spec.device)
        chain.push_back(absl::StrCat(name.str(), " takes no ranks: ", worker.reason));
    }
  }
  if (const GenerationEntry* live = CurrentGeneration(state(), job); live != nullptr && IsLive(live->state)) {
    for (std::string& line : WaitsFor(state(), job, *live, now)) chain.push_back(std::move(line));
  }
  if (job.state == JobState::kBackingOff)
    chain.push_back(absl::StrCat("starts again in ", DurationText(job.retry_at - now)));
  auto generations = state().generations.find(id);
  if (generations == state().generations.end()) return chain;
  constexpr int kShown = 8;
  int shown = 0;
  for (auto g = generations->second.rbegin(); g != generations->second.rend() && shown < kShown; ++g, ++shown) {
    const GenerationEntry& generation = g->second;
    std::string text = absl::StrCat("generation ", generation.number, " is ", ToString(generation.state),
                                    "; started from ", StartOf(job, generation.resume_step));
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
