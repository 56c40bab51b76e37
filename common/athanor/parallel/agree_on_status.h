// What one rank does alone and can fail is agreed before the next collective: else the others wait in it until its
// timeout, for a rank that has left.
//
//   RETURN_IF_ERROR(AgreeOnStatus(members, OpenMyFiles()));        // every rank calls it, whatever its own outcome is
//   RETURN_IF_ERROR(group->AllReduceSum(tensor));
#pragma once

#include "absl/status/status.h"
#include "athanor/parallel/membership.h"
#include "athanor/parallel/process_group.h"

namespace athanor {

// OK when `mine` is OK on every rank. Else an error on every rank, at once: a rank that has failed gets its own, the
// others that of the lowest rank that failed, with "rank 3: " in front and the same code and failure kind. Collective;
// the errors of the collective itself as ProcessGroup's. One rank: `mine`.
absl::Status AgreeOnStatus(const Membership& members, const absl::Status& mine);

}  // namespace athanor
