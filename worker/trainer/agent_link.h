// This rank's line to its agent: TrainerService over the agent's Unix socket. Plain types only, so that code with
// LibTorch can use it.
//
//   ASSIGN_OR_RETURN(auto link, AgentLink::Open(env.socket, {env.job, env.generation, env.rank}));
//   link->Listen([&](StopRequest request) { ... });
//   ASSIGN_OR_RETURN(RendezvousPlan plan, link->Join("10.0.0.1:40001", absl::Now() + absl::Seconds(60)));
//
// A call that needs the coordinator is held by the agent until the coordinator has answered; until the deadline a lost
// agent is tried again with the same call number, which makes repeats harmless. While the agent says that it has no
// contact with the coordinator, deadlines of Join(), CommitShard(), CommitManifest() and Finish() are moved, by a day
// at most: what was trained meanwhile is handed over. Errors: FAILED_PRECONDITION: this generation is over, leave at
// once. DEADLINE_EXCEEDED, UNAVAILABLE: no answer. Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "athanor/contract/committer.h"
#include "athanor/contract/run_hooks.h"

namespace athanor {

struct RankIdentity {
  std::string job;
  int generation = 0;
  int rank = 0;
};

struct RendezvousPlan {
  struct Resume {
    int64_t step = 0;
    std::string path;
    bool weights_only = false;
    std::string storage;  // id of the storage that it was written to; empty: unknown
  };
  int world_size = 0;
  std::string store_endpoint;  // "host:port" of rank 0's store
  std::vector<Resume> resume;  // newest first; empty: from scratch
  int restarts = 0;
};

struct StopRequest {
  bool save = true;  // save at a step boundary, then leave; false: leave now
  std::string reason;
};

class AgentLink {
 public:
  static constexpr absl::Duration kAwayLimit = absl::Hours(24);  // so long a coordinator that is away is waited for

  // INVALID_ARGUMENT for a path that cannot be a socket's. Connects with the first call.
  static absl::StatusOr<std::unique_ptr<AgentLink>> Open(const std::string& socket, RankIdentity identity);
  ~AgentLink();
  AgentLink(const AgentLink&) = delete;

  // Waits until every rank of the generation has joined. `endpoint`: rank 0's store, "" on the others.
  absl::StatusOr<RendezvousPlan> Join(const std::string& endpoint, absl::Time deadline);
  // Rank 0 waits for all shards and gets them, ordered by rank; the others get none.
  absl::StatusOr<std::vector<ShardInfo>> CommitShard(int64_t step, const ShardInfo& shard, absl::Time deadline);
  // `storage`: id of the storage that the files are on; empty: unknown.
  absl::Status CommitManifest(const ManifestSummary& summary, const std::string& storage, absl::Time deadline);
  // Attaches an evaluation's results to a committed step.
  absl::Status ReportEvaluation(const EvaluationSummary& summary, absl::Time deadline);
  absl::Status AbandonCheckpoint(int64_t step, const std::string& reason, absl::Time deadline);
  absl::Status ReportDamage(int64_t step, const std::string& reason, absl::Time deadline);
  // The rank's work is done; exit code 0 follows.
  absl::Status Finish(const ProgressReport& progress, const std::string& phase, absl::Time deadline);
  // The latest state; the agent answers at once. Not repeated: a newer one follows.
  absl::Status Report(const ProgressReport& progress, const std::string& phase, absl::Time deadline);
  // What is left of the lease that the agent told with its last answer; infinite when it told none.
  absl::Duration LeaseLeft() const;
  // Whether the agent said with its last answer that it has no contact to the coordinator. Any thread.
  bool CoordinatorIsAway() const;

  // Calls back for each request of the agent, on the link's own thread ("athanor-listen"), from now until destruction;
  // a lost agent is tried again every half second. Once.
  void Listen(std::function<void(const StopRequest&)> on_stop);

 private:
  class Impl;
  explicit AgentLink(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace athanor
