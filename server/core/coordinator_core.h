// The coordinator's mind: a value-in, value-out state machine. No clock, thread, socket, disk, log or random source
// inside. Not thread-safe; owned by CoreLoop's thread.
//
//   CoordinatorCore core(options, recovered, now);
//   for (Effect& effect : core.Step(SubmitJob{...}, now)) ...
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/core/cluster_state.h"
#include "server/core/effect.h"
#include "server/core/event.h"

namespace athanor::core {

struct CoreOptions {
  absl::Duration lease = absl::Seconds(10);  // without a heartbeat: Suspect at half, Lost at the end
  // Ranks that were told to end and whose ends nobody reports are given up after their grace and this, at least two
  // leases.
  absl::Duration stop_limit = absl::Minutes(1);
  int32_t max_jobs_queued = 20000;
  int32_t max_events_per_job = 1000;     // older ones are deleted
  int32_t max_generations_per_job = 64;  // older ended ones are deleted
  int32_t max_requests = 100000;         // remembered request keys, oldest forgotten first
  absl::Duration request_memory = absl::Hours(24);
  int32_t max_finished_jobs = 20000;                // jobs that are over, the longest over are forgotten first
  int64_t max_finished_bytes = int64_t{512} << 20;  // of memory, of all of them together
  absl::Duration finished_job_age = absl::Hours(24 * 30);
  absl::Duration lost_worker_age = absl::Hours(24 * 7);
  int32_t max_overtaken = 10;     // starts of younger jobs before the oldest one that waits; then it is the next
  std::string checkpoint_root;    // for messages only
  double hang_factor = 10;        // x the mean step time, at least timeouts.hang
  double slow_phase_factor = 10;  // evaluating, saving, restoring, finishing: x the hang limit
};

class CoordinatorCore {
 public:
  // `recovered` is what the store held. Every known worker gets one full lease from `now`; running generations go on.
  CoordinatorCore(CoreOptions options, ClusterState recovered, absl::Time now);
  ~CoordinatorCore();
  CoordinatorCore(CoordinatorCore&&) noexcept;
  CoordinatorCore& operator=(CoordinatorCore&&) noexcept;

  // Applies one event at `now`. Never blocks, never fails: bad requests become Reply effects; a transition that no
  // table lists changes nothing and becomes an event "InternalError".
  // `now` never goes back between calls.
  std::vector<Effect> Step(const Event& event, absl::Time now);

  // Effects that recovery itself calls for (end what has ended, retries that came due meanwhile …); call once after
  // construction. Afterwards NextDeadline() > now, as after every DeadlineReached.
  std::vector<Effect> Recover(absl::Time now);

  // Earliest lease, back-off, join, start-up, hang or stop deadline; InfiniteFuture when none.
  absl::Time NextDeadline() const;
  const ClusterState& state() const;
  const CoreOptions& options() const;

  // Why the job is where it is: the chain of decisions, nearest first.
  std::vector<std::string> Explain(const JobId& job, absl::Time now) const;
  // 1 = next to be placed; 0 = not queued.
  int32_t QueuePosition(const JobId& job) const;
  // The job's reason as of now: of one that waits behind another, which one that is.
  std::string Reason(const JobId& job) const;

 private:
  std::unique_ptr<class Machine> machine_;
};

// What a name stands for that several jobs have. With exactly one that is not over it is always that one.
enum class AmbiguousName : uint8_t {
  kTakeNewest,      // of those that are not over, else of all: questions
  kTakeNewestLive,  // of those that are not over, else an error: verbs
  kRefuse,          // an error: where a silent choice would be kept, as a parent's weights are
};
// The id that `reference` stands for: an id, or a job's name. NOT_FOUND with the nearest name, or FAILED_PRECONDITION
// that lists the candidates.
absl::StatusOr<JobId> ResolveJob(const ClusterState& state, const std::string& reference,
                                 AmbiguousName rule = AmbiguousName::kTakeNewest);
// For people, when `reference` was the name of several jobs and `taken` was chosen; else empty.
std::string AmbiguityNote(const ClusterState& state, const std::string& reference, const JobId& taken);
// NOT_FOUND with the nearest name.
absl::Status NoSuchWorker(const ClusterState& state, const WorkerId& worker);
// A step number, "step-000000000120", an alias or a tag -> the step. What looks like a step is one, whatever is tagged.
absl::StatusOr<Step> ResolveCheckpoint(const ClusterState& state, const JobId& job, const std::string& reference);
// The step that "120" or "step-000000000120" names; none for any other text.
std::optional<Step> StepOf(const std::string& reference);
// INVALID_ARGUMENT for a tag that could be taken for a step, a reserved alias or for none.
absl::Status CheckTag(const std::string& tag);
// Where a generation starts: "step-000000000120", "step 0", "step 0, with weights of step-000000000120 of <parent>".
std::string StartOf(const JobEntry& job, Step resume_step);
// "step-000000000120"
std::string CheckpointName(Step step);
// The job's progress: the slowest rank's step, the sums of samples and rates, rank 0's loss and metrics. Without a live
// generation: what was last stored.
RankProgress AggregateProgress(const ClusterState& state, const JobEntry& job);
// Where the job would start now: the step of its newest committed checkpoint; -1 without one.
Step NewestCommitted(const ClusterState& state, const JobId& job);
// How the newest checkpoint lags behind the job, and why; "" when it does not.
std::string CheckpointWarning(const ClusterState& state, const JobEntry& job);
// True when it had committed checkpoints and none of them can be offered any more: it must not begin again by itself.
bool LostAllCheckpoints(const ClusterState& state, const JobEntry& job);
// The live or last generation; nullptr before the first placement.
const GenerationEntry* CurrentGeneration(const ClusterState& state, const JobEntry& job);
bool IsLive(GenerationState state);
// Running, Suspending and Cancelling: the job has a live generation.
bool NeedsGeneration(JobState state);

}  // namespace athanor::core
