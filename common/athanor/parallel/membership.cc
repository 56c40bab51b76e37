#include "athanor/parallel/membership.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/parallel/process_group.h"

namespace athanor {

Membership::Membership(ProcessGroup* group) : group_(group) {
  if (group == nullptr) return;
  // A group's own numbers fit together.
  topology_ = ParallelTopology::Create(group->world_size(), group->rank(), /*local_rank=*/0).value_or(topology_);
}

absl::StatusOr<Membership> Membership::Create(const ParallelTopology& topology, ProcessGroup* group) {
  const int world = group == nullptr ? 1 : group->world_size(), rank = group == nullptr ? 0 : group->rank();
  if (world != topology.world_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("runner: the topology has ", topology.world_size(), " ranks, the process group ", world));
  }
  if (rank != topology.rank()) {
    return absl::InvalidArgumentError(
        absl::StrCat("runner: the topology is of rank ", topology.rank(), ", the process group of rank ", rank));
  }
  Membership members;
  members.topology_ = topology;
  members.group_ = group;
  return members;
}

absl::StatusOr<ProcessGroup*> Membership::GroupOf(absl::string_view domain) const {
  if (ParallelTopology::DomainAxes(domain).empty()) {
    return absl::InvalidArgumentError(absl::StrCat("membership: no axis or domain '", domain,
                                                   "'; allowed: ", absl::StrJoin(ParallelTopology::kAxes, ", "), ", ",
                                                   absl::StrJoin(ParallelTopology::Domains(), ", ")));
  }
  const std::vector<int64_t> members = topology_.DomainMembers(domain, rank());
  if (group_ == nullptr || members.size() == 1) return nullptr;
  std::vector<int> ranks(members.begin(), members.end());
  return group_->Subgroup(ranks);
}

}  // namespace athanor
