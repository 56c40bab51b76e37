// How a rank becomes a member of its generation: rank 0 opens the generation's store, every rank joins through its
// agent, and all meet in one process group.
//
//   RendezvousClient rendezvous(&link, env, deadline);
//   RETURN_IF_ERROR(rendezvous.Start());          // joins in the background …
//   ... set the task up ...                       // … meanwhile
//   ASSIGN_OR_RETURN(JoinedRanks joined, rendezvous.Finish(device, config.comm));
#pragma once

#include <future>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "athanor/config/runner_config.h"
#include "athanor/parallel/process_group.h"
#include "worker/trainer/agent_link.h"
#include "worker/trainer/trainer_env.h"

namespace athanor {

// What a rank gets by joining.
struct JoinedRanks {
  RendezvousPlan plan;
  std::unique_ptr<HostStore> store;     // rank 0; outlives the group
  std::unique_ptr<ProcessGroup> group;  // null when the world is one rank
};

class RendezvousClient {
 public:
  // `link` and `env` outlive this object.
  RendezvousClient(AgentLink* link, const TrainerEnv& env, absl::Time deadline);
  ~RendezvousClient();

  // UNAVAILABLE when the store's port cannot be opened.
  absl::Status Start();
  // Waits for the others. FAILED_PRECONDITION: the generation is over. DEADLINE_EXCEEDED: not all ranks came.
  // INVALID_ARGUMENT: an answer that does not fit this rank. `device`: of the tensors to be reduced.
  absl::StatusOr<JoinedRanks> Finish(const torch::Device& device, const CommConfig& comm);

 private:
  absl::StatusOr<ProcessGroupOptions> GroupOptions(const RendezvousPlan& plan) const;

  AgentLink* const link_;
  const TrainerEnv& env_;
  const absl::Time deadline_;
  std::unique_ptr<HostStore> store_;
  std::future<absl::StatusOr<RendezvousPlan>> joining_;
};

}  // namespace athanor
