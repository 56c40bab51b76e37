// Where one rank stands in its job. Today every rank is one data-parallel replica.
//
//   ASSIGN_OR_RETURN(Topology topology, Topology::Create(/*world_size=*/4, /*rank=*/1, /*local_rank=*/1));
//   topology.data_parallel_rank();   // 1: which share of the data this rank reads
#pragma once

#include "absl/status/statusor.h"

namespace athanor {

class Topology {
 public:
  Topology() = default;  // one rank alone
  // INVALID_ARGUMENT unless 1 <= world_size, 0 <= rank < world_size and 0 <= local_rank < world_size.
  static absl::StatusOr<Topology> Create(int world_size, int rank, int local_rank);

  int world_size() const { return world_size_; }
  int rank() const { return rank_; }
  int local_rank() const { return local_rank_; }  // among the ranks of this machine: picks the device
  bool is_main() const { return rank_ == 0; }

  int data_parallel_size() const { return world_size_; }
  int data_parallel_rank() const { return rank_; }

 private:
  int world_size_ = 1;
  int rank_ = 0;
  int local_rank_ = 0;
};

}  // namespace athanor
