#include "athanor/parallel/topology.h"

#include "absl/strings/str_cat.h"

namespace athanor {

absl::StatusOr<Topology> Topology::Create(int world_size, int rank, int local_rank) {
  if (world_size < 1) {
    return absl::InvalidArgumentError(absl::StrCat("topology: world_size is ", world_size, ", must be at least 1"));
  }
  if (rank < 0 || rank >= world_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("topology: rank is ", rank, ", must be in 0 .. ", world_size - 1, " (world_size - 1)"));
  }
  if (local_rank < 0 || local_rank >= world_size) {
    return absl::InvalidArgumentError(absl::StrCat("topology: local_rank is ", local_rank, ", must be in 0 .. ",
                                                   world_size - 1, " (world_size - 1)"));
  }
  Topology topology;
  topology.world_size_ = world_size;
  topology.rank_ = rank;
  topology.local_rank_ = local_rank;
  return topology;
}

}  // namespace athanor
