// What the store held, made consistent: a record that was damaged, put aside or restored from an older backup must not
// leave a job without an end or end the service. After RepairRecovered() CheckInvariants() holds, whatever came in.
// Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/core/cluster_state.h"

namespace athanor::core {

struct Repair {
  JobId job;        // or, for a worker, empty
  WorkerId worker;  // or, for a job, empty
  std::string what;
  std::vector<Generation> generations;  // that were changed, beside the job
  std::vector<Step> checkpoints;
};

std::vector<Repair> RepairRecovered(ClusterState& state, absl::Time now);

}  // namespace athanor::core
