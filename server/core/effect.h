// Everything that can go out of the core. The shell writes all PutRecord/DeleteRecord of a batch in one synced commit
// and only then releases the others, in order.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/core/event.h"

namespace athanor::core {

// ---- persist ----
struct PutRecord {
  std::variant<JobEntry, GenerationEntry, CheckpointEntry, WorkerEntry, JobEventEntry, RequestEntry> record;
};
struct DeleteRecord {
  enum class Kind : uint8_t { kJob, kGeneration, kCheckpoint, kWorker, kEvent, kRequest };
  Kind kind;
  JobId job;           // job, generation, checkpoint, event
  int64_t number = 0;  // generation, step, sequence
  std::string key;     // worker id, request key
};

// ---- act ----
// Answers a client's verb.
struct Reply {
  CallId call = 0;
  absl::Status status;
  JobId job;
  bool created = false;
  std::string message;  // for people
  JobState job_state = JobState::kQueued;
  int32_t queue_position = 0;        // dry run
  std::vector<Placement> placement;  // dry run
  Step step = -1;                    // checkpoint verbs
};
// Answers a rank's call, through its agent. FAILED_PRECONDITION: the generation is stale, exit at once.
struct ResumePoint {
  JobId job;
  Step step = -1;
  bool weights_only = false;
  std::string storage;
};
struct RendezvousPlan {
  int32_t world_size = 0;
  std::string store_endpoint;
  std::vector<ResumePoint> resume;
  int32_t restarts = 0;
};
struct RankReply {
  CallId call = 0;
  absl::Status status;
  RendezvousPlan plan;  // answer to RankJoined
  std::vector<ShardEntry>
      shards;  // answer to rank 0's ShardCommitted, held until all are in; other ranks are answered at once
};
// Answers WorkerRegistered. A refusal ends the session.
struct AcceptWorker {
  SessionId session = 0;
  WorkerId worker;  // commands for it go to this session from now on
  uint64_t incarnation = 0;
  std::vector<RankRef> keep;
};
struct RefuseWorker {
  SessionId session = 0;
  std::string reason;
  bool lease_over = false;  // what ran there was given away
};

// Ranks of one generation, on their workers.
struct LaunchRanks {
  struct Seat {
    Placement placement;
    int32_t local_rank = 0;  // index among this generation's ranks on this worker
  };
  JobId job;
  Generation generation = 0;
  int32_t world_size = 0;
  int32_t restarts = 0;
  std::string spec;  // JobSpec::payload
  std::vector<Seat> seats;
};
enum class StopMode : uint8_t { kKill = 1, kSaveAndLeave = 2 };
struct StopTrainer {
  WorkerId worker;
  RankRef id;
  StopMode mode = StopMode::kKill;
  absl::Duration grace;
  std::string reason;
  bool dump_stacks = false;
};
// Asks any one worker to remove a checkpoint's files; answered by FilesDeleted.
struct DeleteFiles {
  WorkerId worker;
  JobId job;
  Step step = -1;
  std::string storage;
};

// ---- observe ----
// What readers see of these changed (the shell republishes them). Progress alone does this without a PutRecord.
struct Touched {
  JobId job;
  WorkerId worker;
};
// For counters, histograms and the log; never drives a decision.
struct Note {
  enum class Kind : uint8_t {
    kJobSubmitted,
    kJobEnded,
    kGenerationStarted,
    kRestart,
    kRecovered,
    kFencedMessage,
    kLeaseExpired,
    kCheckpointCommitted,
    kCheckpointFailed,
    kCheckpointDamaged,
    kCheckpointDeleted,
    kHang,
    kQueueWait,
    kPreemption,
    kQuarantine,
    kFailure,
    kInternalError,  // of a worker: jobs have an event
  };
  Kind kind;
  JobId job;
  Generation generation = 0;
  Rank rank = -1;
  WorkerId worker;
  std::string label;  // cause kind, job state, message kind …: from a fixed list
  double seconds = 0;
  int64_t bytes = 0;
  std::string message;
};

using Effect = std::variant<PutRecord, DeleteRecord, Reply, RankReply, AcceptWorker, RefuseWorker, LaunchRanks,
                            StopTrainer, DeleteFiles, Touched, Note>;

}  // namespace athanor::core
