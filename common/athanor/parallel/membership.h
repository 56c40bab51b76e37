// Who trains together: the ranks of one generation, how they are laid out, and what connects them. A value that does
// not change: when the ranks do, a new one goes to all that know them, by Reseat(const Membership&), which is also how
// they learn of the first.
//
//   ASSIGN_OR_RETURN(Membership members, Membership::Create(topology, group.get()));
//   RETURN_IF_ERROR(reducer->Reseat(members));
//
// Nothing else keeps a process group.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "athanor/parallel/parallel_topology.h"

namespace athanor {

class ProcessGroup;

class Membership {
 public:
  Membership() = default;  // one rank alone
  // Data parallelism over all ranks of the group, which outlives everything that is seated with this; null: one rank.
  Membership(ProcessGroup* group);  // NOLINT(google-explicit-constructor): a group is a membership
  // `group` outlives everything that is seated with the result; null: one rank. INVALID_ARGUMENT when the two are of
  // different numbers of ranks, or of different ranks.
  static absl::StatusOr<Membership> Create(const ParallelTopology& topology, ProcessGroup* group);

  const ParallelTopology& topology() const { return topology_; }
  ProcessGroup* group() const { return group_; }  // null: nobody to talk to
  // The ranks that reduce together with this one over an axis or domain ("shard", "data"), made when it is first asked
  // for; null: this rank is alone there. Collective over them. INVALID_ARGUMENT: no such axis or domain.
  absl::StatusOr<ProcessGroup*> GroupOf(absl::string_view domain) const;
  // Whether there is somebody to agree with.
  bool several() const { return group_ != nullptr && topology_.world_size() > 1; }

  int world_size() const { return topology_.world_size(); }
  int rank() const { return topology_.rank(); }
  int local_rank() const { return topology_.local_rank(); }
  bool is_main() const { return topology_.is_main(); }
  int data_parallel_size() const { return topology_.data_parallel_size(); }
  int data_parallel_rank() const { return topology_.data_parallel_rank(); }

 private:
  ParallelTopology topology_;
  ProcessGroup* group_ = nullptr;
};

}  // namespace athanor
