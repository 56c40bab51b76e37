// Everything the coordinator knows: plain ordered maps of plain entries. Ordered, because iteration order reaches
// effects and the same events must always give the same effects. "soft" members are not stored: they come back from the
// agents.
#pragma once

#include <boost/describe.hpp>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/core/job_spec.h"

namespace athanor::core {

enum class JobState : uint8_t {  // numbers equal athanor.v1.JobState
  kQueued = 1,
  kRunning = 2,
  kBackingOff = 3,
  kSuspending = 4,
  kSuspended = 5,
  kCancelling = 6,
  kSucceeded = 7,
  kFailed = 8,
  kCancelled = 9,
};
enum class GenerationState : uint8_t {  // numbers equal athanor.v1.GenerationState
  kLaunching = 1,
  kJoining = 2,
  kTraining = 3,
  kStopping = 4,
  kCompleted = 5,
  kFailed = 6,
  kCancelled = 7,
  kPreempted = 8,
};
enum class WorkerState : uint8_t {  // numbers equal athanor.v1.WorkerState
  kReady = 1,
  kSuspect = 2,
  kLost = 3,
  kDraining = 4,
  kDrained = 5,
  kQuarantined = 6,
};
enum class CheckpointState : uint8_t {  // numbers equal athanor.v1.CheckpointState
  kCollecting = 1,
  kSealed = 2,
  kCommitted = 3,
  kAbandoned = 4,
  kDeleting = 5,
  kDamaged = 6,
};
const char* ToString(JobState state);  // "Queued" …
const char* ToString(GenerationState state);
const char* ToString(WorkerState state);
const char* ToString(CheckpointState state);
bool IsFinal(JobState state);

// The core's twin of athanor.v1.RankProgress: common/service/message_fields.h copies what both have under one name.
struct RankProgress {
  Rank rank = -1;
  std::string phase;
  Step step = 0;
  double epoch = 0;
  int64_t samples = 0;
  double loss = 0;
  std::map<std::string, double> metrics;
  double step_seconds = 0;
  double samples_per_second = 0;
  int64_t total_steps = 0;
  double checkpoint_stall_seconds = 0;
  int64_t checkpoint_failures = 0;
  Step resumed_from_step = -1;
  std::string checkpoint_error;
  int64_t nonfinite_losses = 0;
  int64_t checkpoint_skipped = 0;
  double evaluate_seconds = 0;
  int64_t phase_progress = 0;
  int64_t exchanges = 0;
  std::vector<std::string> events;  // of the run, in the rank's words: each becomes an event of the job, once
  absl::Time updated_at =
      absl::InfinitePast();  // soft: when the rank itself was last heard, by the coordinator's clock
  absl::Time advanced_at = absl::InfinitePast();  // soft: when phase, step or phase_progress last changed
};
BOOST_DESCRIBE_STRUCT(RankProgress, (),
                      (rank, phase, step, epoch, samples, loss, metrics, step_seconds, samples_per_second, total_steps,
                       checkpoint_stall_seconds, checkpoint_failures, resumed_from_step, checkpoint_error,
                       nonfinite_losses, checkpoint_skipped, evaluate_seconds, phase_progress, exchanges))

struct Placement {  // one rank's seat
  Rank rank = -1;
  WorkerId worker;
  std::vector<int32_t> slots;
  friend bool operator==(const Placement&, const Placement&) = default;
};

enum class RankState : uint8_t { kLaunching = 1, kStarted = 2, kJoined = 3, kFinished = 4, kExited = 5 };

struct RankEntry {
  Placement placement;
  RankState state = RankState::kLaunching;
  bool said_finish = false;
  uint64_t join_call = 0;  // soft: the held Join, 0 = none
  std::string endpoint;    // rank 0's c10d store
  RankProgress progress;   // soft
};

struct GenerationEntry {
  JobId job;
  Generation number = 0;
  GenerationState state = GenerationState::kLaunching;
  std::vector<RankEntry> ranks;
  absl::Time created_at, training_at = absl::InfinitePast(), ended_at = absl::InfinitePast();
  absl::Time deadline = absl::InfiniteFuture();  // of the current state: join, startup, or stop grace
  // soft: a Stopping generation gives up the ranks whose ends nobody has reported by then
  absl::Time stop_limit = absl::InfiniteFuture();
  std::optional<FailureCause> cause;  // the first failure
  std::string reason;
  Step resume_step = -1;
  bool stop_for_suspend = false, stop_for_cancel = false, stop_for_preempt = false;
};

struct GoodputEntry {
  double productive_seconds = 0, recomputed_seconds = 0, checkpoint_seconds = 0, recovery_seconds = 0,
         queue_seconds = 0, suspended_seconds = 0;
  absl::Time accounted_until = absl::InfinitePast();
};
BOOST_DESCRIBE_STRUCT(GoodputEntry, (),
                      (productive_seconds, recomputed_seconds, checkpoint_seconds, recovery_seconds, queue_seconds,
                       suspended_seconds))

struct JobEntry {
  JobId id;
  JobSpec spec;
  JobState state = JobState::kQueued;
  std::string reason;
  Generation generation = 0;
  uint64_t submit_order = 0;  // the queue's tie-break
  absl::Time created_at, started_at = absl::InfinitePast(), ended_at = absl::InfinitePast(), queued_at,
                         retry_at = absl::InfiniteFuture();
  std::map<CauseKind, int32_t> restarts_by_cause;
  int32_t generations_without_progress = 0;
  Step best_progress_step = -1;  // highest committed step any generation started from
  std::optional<FailureCause> last_cause;
  GoodputEntry goodput;
  RankProgress last_progress;           // of the whole job; stored when it ends and with each commit
  std::map<std::string, Step> aliases;  // "latest", "best", user tags -> step of a committed checkpoint
  JobId parent;                         // resolved
  Step parent_step = -1;
  Step max_step_seen = 0;             // steps below it are recomputed ones
  Generation scratch_generation = 0;  // checkpoints up to this generation were set aside by the user
  int32_t overtaken = 0;              // soft: starts of younger jobs while it was the oldest that waited
  bool reserved = false;              // soft: overtaken too often: goes first
  int64_t next_event = 1;
  int64_t version = 0;  // grows with each stored change
  uint64_t seed = 0;    // of the jitter
  // soft: the newest one that agents know of; above `generation` when an older copy of the store was restored
  Generation newest_generation = 0;
};

struct ShardEntry {
  Rank rank = -1;
  std::string file;
  int64_t bytes = 0;
  uint32_t crc32c = 0;
  friend bool operator==(const ShardEntry&, const ShardEntry&) = default;
};

struct CheckpointEntry {
  JobId job;
  Step step = -1;
  Generation generation = 0;
  CheckpointState state = CheckpointState::kCollecting;
  std::map<Rank, ShardEntry> shards;
  int32_t shards_expected = 0;
  int64_t bytes = 0;
  std::map<std::string, double> metrics;
  bool is_best = false;
  absl::Time created_at, committed_at = absl::InfinitePast();
  std::string note;
  double save_seconds = 0;
  std::string storage;                   // id of the storage that holds its files; empty: unknown
  std::map<Rank, uint64_t> shard_calls;  // soft: held CommitShard calls (rank 0's is answered at Sealed)
};

struct WorkerEntry {
  WorkerId id;
  WorkerState state = WorkerState::kReady;
  uint64_t incarnation = 0;
  std::string instance;  // of the agent's process
  std::string home;      // of its work folder, which one process at a time can lock; empty: unknown
  std::string host;
  int32_t slots = 0;
  std::string device = "cpu";
  std::string version;
  std::map<std::string, std::string> labels;
  absl::Time registered_at;
  absl::Time lost_at = absl::InfinitePast();  // while Lost
  bool drain = false;                         // stored intent: survives re-registration
  std::string reason;
  absl::Time quarantined_until = absl::InfinitePast();
  int32_t quarantines = 0;          // in a row: each doubles the next
  std::set<JobId> launch_failures;  // soft: jobs whose launch failed here since a rank last joined from here
  uint64_t session = 0;             // soft: 0 = not connected
  uint64_t newest_session = 0;      // soft: of this instance, connected or not
  bool heard = true;                // soft: a heartbeat has come since it registered
  bool leaving = false;             // soft: it said that it is stopping
  absl::Time returns_by = absl::InfinitePast();      // soft: not connected, but expected back until then
  std::set<RankRef> unaccounted;                     // soft: believed to run here, but missing in its registration
  absl::Time lease_until = absl::InfinitePast();     // soft
  absl::Time last_heartbeat = absl::InfinitePast();  // soft
  std::map<int32_t, RankRef> used;                   // slot -> rank; derived from the generations at recovery
};

struct JobEventEntry {
  JobId job;
  int64_t sequence = 0;
  absl::Time time;
  std::string type;
  Generation generation = 0;
  Rank rank = -1;
  std::string message;
};

// The answer that a mutating verb gave, kept so that its repetition gets the same one.
struct RequestEntry {
  std::string key;
  std::string digest;  // of verb and arguments: the same key with other arguments is refused
  JobId job;
  std::string message;
  absl::Time time;
  Step step = -1;  // of the checkpoint that the verb was about
};

struct ClusterState {
  std::map<JobId, JobEntry> jobs;
  std::map<JobId, std::map<Generation, GenerationEntry>> generations;
  std::map<JobId, std::map<Step, CheckpointEntry>> checkpoints;
  std::map<WorkerId, WorkerEntry> workers;
  std::map<std::string, RequestEntry> requests;
  uint64_t next_submit_order = 1;
};

}  // namespace athanor::core
