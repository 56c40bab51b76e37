// The ranks of a program without the service, as torchrun, mpirun wrappers and one's own scripts start them: one
// process per rank, told where it stands by the environment.
//
//   torchrun --no-python --nproc-per-node 4 ./train          // or WORLD_SIZE, RANK, MASTER_ADDR, MASTER_PORT by hand
//
//   ASSIGN_OR_RETURN(LaunchEnvironment launch, ReadLaunchEnvironment(config.comm.init_method));
//   ASSIGN_OR_RETURN(LaunchedRanks ranks, JoinLaunchedRanks(launch, config.comm, torch::kCPU));
//   options.members = ranks.members();
//
// Under the service none of this is needed: the trainer joins by itself.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "athanor/config/runner_config.h"
#include "athanor/parallel/membership.h"
#include "athanor/parallel/parallel_topology.h"
#include "athanor/parallel/process_group.h"

namespace athanor {

struct LaunchEnvironment {
  int world_size = 1;
  int rank = 0;
  int local_rank = 0;
  std::string store_host;  // "" with one rank
  int store_port = 0;
  bool store_is_hosted = false;  // by the launcher; else rank 0 hosts it
  int restarts = 0;              // of the launcher: each gets names of its own in the store
};

// WORLD_SIZE, RANK, LOCAL_RANK (default 1, 0, 0), MASTER_ADDR, MASTER_PORT, and torchrun's TORCHELASTIC_RESTART_COUNT
// and TORCHELASTIC_USE_AGENT_STORE. `init_method`: "env://", or "tcp://host:port" in place of MASTER_*; unset: the
// environment. INVALID_ARGUMENT names the variable, what it holds and what is allowed.
absl::StatusOr<LaunchEnvironment> ReadLaunchEnvironment(const std::optional<std::string>& init_method);

// For a program that has joined nobody: INVALID_ARGUMENT where a launcher says that this process is one of several
// ranks (WORLD_SIZE, OMPI_COMM_WORLD_SIZE or PMI_SIZE above 1), with the variable and what to do.
absl::Status CheckLaunchedAlone();

struct LaunchedRanks {
  ParallelTopology topology;
  std::unique_ptr<HostStore> store;     // of rank 0, unless the launcher has one; outlives the group
  std::unique_ptr<ProcessGroup> group;  // null: one rank

  // For the runner's options. The group outlives the runner.
  Membership members() const;
};

// Returns when every rank has joined. `device` of this rank, as "cuda:<local rank>".
absl::StatusOr<LaunchedRanks> JoinLaunchedRanks(const LaunchEnvironment& launch, const CommConfig& comm,
                                                const torch::Device& device);

}  // namespace athanor
