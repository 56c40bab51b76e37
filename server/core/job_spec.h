// The core's own plain view of a JobSpec and its parts. The core compiles without protobuf; convert/proto_convert
// translates.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "athanor/base/strong_id.h"
#include "athanor/contract/failure_cause.h"

namespace athanor::core {

using JobId = StrongId<struct JobIdTag>;
using WorkerId = StrongId<struct WorkerIdTag>;

// One membership of one job: 1, 2, 3 … never reused.
using Generation = int32_t;
using Rank = int32_t;
using Step = int64_t;

// (job, generation, rank): rides on every message of a trainer. The core refuses stale ones.
struct RankRef {
  JobId job;
  Generation generation = 0;
  Rank rank = -1;
  friend auto operator<=>(const RankRef&, const RankRef&) = default;
};

using athanor::CauseKind;

struct FailureCause {
  CauseKind kind = CauseKind::kUnspecified;
  bool retryable = true;
  Rank rank = -1;
  WorkerId worker;
  int32_t exit_code = 0;
  int32_t signal = 0;
  std::string detail;
  std::string log_tail;
};

struct RestartPolicySpec {
  std::map<CauseKind, int32_t> budgets;  // absent: that of contract/failure_cause.h; -1 = unlimited
  absl::Duration backoff_initial = absl::Milliseconds(200);
  absl::Duration backoff_max = absl::Seconds(60);
  double backoff_jitter = 0.2;
  int32_t max_generations_without_progress = 5;
};

struct TimeoutsSpec {
  absl::Duration join = absl::Seconds(60);
  absl::Duration startup = absl::Seconds(300);
  absl::Duration hang = absl::Seconds(30);
  absl::Duration stop_grace = absl::Seconds(30);
};

// When a rank whose agent has lost the coordinator ends.
enum class Fencing : uint8_t {
  kGeneration,  // when it was replaced: until then it trains on; commits, stores and files are fenced by its generation
  kStrict,      // when the agent's lease is over, before its slots can be given away
};

struct JobSpec {
  std::string name;
  std::map<std::string, std::string> labels;
  int32_t ranks = 1;
  int32_t slots_per_rank = 1;
  std::string device = "cpu";
  int32_t priority = 0;
  bool preemptible = false;
  RestartPolicySpec restart;
  TimeoutsSpec timeouts;
  Fencing fencing = Fencing::kGeneration;
  std::string parent_job;  // as submitted; resolved to an id by the core
  std::string parent_checkpoint;
  int32_t keep_latest_k = 3;  // from runner.checkpoint: retention; 0 = keep all
  std::string payload;        // the serialized athanor.v1.JobSpec: opaque here, stored and sent to agents
};

}  // namespace athanor::core
