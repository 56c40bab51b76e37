// Everything that can come into the core: one closed variant. Ids, seeds and times come in on the event or as `now`.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "server/core/cluster_state.h"

namespace athanor::core {

// Names a call that waits for exactly one Reply effect; made by the shell, unique in the process; 0 = nobody waits.
using CallId = uint64_t;
// Names one live agent stream; made by the shell, never reused.
using SessionId = uint64_t;

struct RequestKey {
  std::string key;  // empty: not idempotent (only dry runs)
  std::string digest;
};

// ---- verbs of clients; `job` is an id or a name (see JobService) ----
struct SubmitJob {
  CallId call = 0;
  RequestKey request;
  JobId id;      // fresh, used if a job is created
  JobSpec spec;  // validated by the shell
  bool dry_run = false;
  uint64_t seed = 0;  // of the back-off jitter
};
struct CancelJob {
  CallId call = 0;
  RequestKey request;
  std::string job;
  std::string reason;
};
struct SuspendJob {
  CallId call = 0;
  RequestKey request;
  std::string job;
  std::string reason;
};
struct ResumeJob {
  CallId call = 0;
  RequestKey request;
  std::string job;
  std::string reason;
  bool from_scratch = false;
  // A pure function of the spec that the job has: the spec it goes on with. Empty: as it is.
  std::function<absl::StatusOr<JobSpec>(const JobSpec&)> change;
  std::string changes;  // for the job's events
};
struct DeleteJob {
  CallId call = 0;
  RequestKey request;
  std::string job;
  std::string reason;
};
struct TagCheckpoint {
  CallId call = 0;
  RequestKey request;
  std::string job, checkpoint, tag;
  std::optional<Step> expected;  // compare and set; -1 = "points nowhere"
};
struct UntagCheckpoint {
  CallId call = 0;
  RequestKey request;
  std::string job, tag;
  std::optional<Step> expected;
};
struct DeleteCheckpoint {
  CallId call = 0;
  RequestKey request;
  std::string job, checkpoint;
  bool dry_run = false;
};
struct DrainWorker {
  CallId call = 0;
  RequestKey request;
  WorkerId worker;
};
struct UndrainWorker {
  CallId call = 0;
  RequestKey request;
  WorkerId worker;
};

// ---- from an agent's session ----
struct RunningRank {
  RankRef id;
  std::vector<int32_t> slots;
  RankProgress progress;
};
struct WorkerRegistered {
  SessionId session = 0;
  WorkerId worker;
  uint64_t incarnation = 0;  // 0: first registration of this agent process
  std::string instance, home, host, device, version;
  int32_t slots = 0;
  std::map<std::string, std::string> labels;
  std::vector<RunningRank> running;
};
struct RankReport {
  RankRef id;
  RankProgress progress;
  absl::Duration age;
};
// `incarnation` 0: the session says it all.
struct WorkerHeartbeat {
  SessionId session = 0;
  WorkerId worker;
  uint64_t incarnation = 0;
  std::vector<RankReport> reports;
  bool leaving = false;
};
struct SessionLost {
  SessionId session = 0;
  WorkerId worker;
  std::string refused;  // why the coordinator ended it over a message that it could not read; else empty
};
struct RankLaunched {
  SessionId session = 0;
  WorkerId worker;
  RankRef id;
  int64_t pid = 0;
};
struct RankExited {
  SessionId session = 0;
  WorkerId worker;
  RankRef id;
  std::optional<FailureCause> cause;  // none: exit code 0
  bool finished = false;
  Generation newest_generation = 0;  // of the job, as far as the agent knows; 0: not known
};
// What a rank was doing before it was ended for a hang.
struct RankStacks {
  WorkerId worker;
  RankRef id;
  std::string text;
};
// Calls of a rank, relayed. `call` is answered by a RankReply effect.
struct RankJoined {
  CallId call = 0;
  WorkerId worker;
  RankRef id;
  std::string endpoint;
};
struct ShardCommitted {
  CallId call = 0;
  WorkerId worker;
  RankRef id;
  Step step = -1;
  ShardEntry shard;
};
struct ManifestCommitted {
  CallId call = 0;
  WorkerId worker;
  RankRef id;
  Step step = -1;
  int64_t bytes = 0;
  std::map<std::string, double> metrics;
  bool is_best = false;
  double save_seconds = 0;
  std::string storage;
};
// Of a committed step, of this generation or of the one that this one was restored from.
struct EvaluationReported {
  CallId call = 0;
  WorkerId worker;
  RankRef id;
  Step step = -1;
  std::map<std::string, double> metrics;
  bool is_best = false;
};
struct CheckpointAbandoned {
  CallId call = 0;
  WorkerId worker;
  RankRef id;
  Step step = -1;
  std::string reason;
};
struct RankFinished {
  CallId call = 0;
  WorkerId worker;
  RankRef id;
  RankProgress progress;
};
struct CheckpointDamaged {
  CallId call = 0;
  WorkerId worker;
  RankRef id;
  Step step = -1;
  std::string reason;
};
struct FilesDeleted {
  WorkerId worker;
  JobId job;
  Step step = -1;
  std::string error;
};

// A record of this job could not be used, or not be written, and was left out of the state.
struct RecordPutAside {
  JobId job;
  std::string problem;
};

// `now` reached NextDeadline(). Harmless when early.
struct DeadlineReached {};
// The process was stopped or starved for `gap`: leases and deadlines are moved by it, nobody is blamed for our own
// pause.
struct ClockGap {
  absl::Duration gap;
};

using Event = std::variant<SubmitJob, CancelJob, SuspendJob, ResumeJob, DeleteJob, TagCheckpoint, UntagCheckpoint,
                           DeleteCheckpoint, DrainWorker, UndrainWorker, WorkerRegistered, WorkerHeartbeat, SessionLost,
                           RankLaunched, RankExited, RankStacks, RankJoined, ShardCommitted, ManifestCommitted,
                           EvaluationReported, CheckpointAbandoned, RankFinished, CheckpointDamaged, FilesDeleted,
                           RecordPutAside, DeadlineReached, ClockGap>;

}  // namespace athanor::core
