// Where the seconds of a job went. They add up to its age:
//   queue       from submit, requeue or preemption until the first step of the generation that follows
//   recovery    from a failure until the first step after it, back-off and waiting for slots included
//   checkpoint  training waited for a save
//   recomputed  steps below one that was reached before
//   productive  all other time in which ranks train
//   suspended   suspended by request
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/core/machine.h"

namespace athanor::core {

void Machine::Account(JobEntry& job) {
  const double seconds = std::max(0.0, absl::ToDoubleSeconds(now_ - job.goodput.accounted_until));
  job.goodput.accounted_until = std::max(now_, job.goodput.accounted_until);
  const GenerationEntry* generation = CurrentGeneration(state, job);
  const bool after_failure = generation != nullptr && generation->state == GenerationState::kFailed;
  switch (job.state) {
    case JobState::kQueued:
      (after_failure ? job.goodput.recovery_seconds : job.goodput.queue_seconds) += seconds;
      return;
    case JobState::kBackingOff:
      job.goodput.recovery_seconds += seconds;
      return;
    case JobState::kSuspended:
      job.goodput.suspended_seconds += seconds;
      return;
    case JobState::kSucceeded:
    case JobState::kFailed:
    case JobState::kCancelled:
      return;
    case JobState::kRunning:
    case JobState::kSuspending:
    case JobState::kCancelling:
      if (generation != nullptr) AccountTraining(job, *generation, seconds);
      return;
  }
}

void Machine::AccountTraining(JobEntry& job, const GenerationEntry& generation, double seconds) {
  const RankProgress& lead = generation.ranks[0].progress;
  const bool stepped =
      generation.training_at != absl::InfinitePast() && lead.step > std::max<core::Step>(0, lead.resumed_from_step);
  if (!stepped) {
    const GenerationEntry* before = FindGeneration(job.id, generation.number - 1);
    const bool after_failure = before != nullptr && before->state == GenerationState::kFailed;
    (after_failure ? job.goodput.recovery_seconds : job.goodput.queue_seconds) += seconds;
    return;
  }
  double& seen = stall_seen_[job.id];
  const double stall = std::clamp(lead.checkpoint_stall_seconds - seen, 0.0, seconds);
  seen = std::max(seen, lead.checkpoint_stall_seconds);
  job.goodput.checkpoint_seconds += stall;
  // The furthest report: the ranks advance together, but their agents report at different times.
  Step reached = lead.step;
  for (const RankEntry& rank : generation.ranks) reached = std::max(reached, rank.progress.step);
  (reached < job.max_step_seen ? job.goodput.recomputed_seconds : job.goodput.productive_seconds) += seconds - stall;
}

}  // namespace athanor::core
