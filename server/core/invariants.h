// What must hold after every step. Run in all tests and sampled in production.
#pragma once

#include "absl/status/status.h"
#include "server/core/cluster_state.h"

namespace athanor::core {

// INTERNAL names the first breach:
//   * a job has at most one live generation, its newest; Running, Suspending and Cancelling jobs have one, others none
//   * no two ranks hold one slot; every rank of a live generation that has not exited holds exactly its slots
//   * aliases and tags point at committed checkpoints; `latest` is the newest committed one
//   * a committed or sealed checkpoint has every shard
//   * event sequences, generations and versions only grow (checked by the caller against the state before)
absl::Status CheckInvariants(const ClusterState& state);

}  // namespace athanor::core
