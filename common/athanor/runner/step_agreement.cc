#include "athanor/runner/step_agreement.h"

#include <algorithm>
#include <cmath>

#include "athanor/base/status_macros.h"

namespace athanor {

StepAgreement::StepAgreement(ProcessGroup* group, bool device_waits)
    : group_(group), every_step_(!device_waits && (group == nullptr || group->host_memory() != nullptr)) {}

absl::StatusOr<StepVerdict> StepAgreement::Vote(const StepVote& vote, int64_t round) {
  const int64_t micros = static_cast<int64_t>(std::max(vote.step_seconds, 0.0) * 1e6);
  std::vector<int64_t> values = {vote.stop ? 1 : 0, vote.nonfinite_in_a_row, vote.nonfinite_total, micros};
  if (group_ != nullptr && group_->world_size() > 1) {
    ASSIGN_OR_RETURN(Agreement agreement, group_->AllAgree(values));
    values = std::move(agreement.max);
  }
  int64_t interval = 1;
  // The first steps are slow and say little; a loss that went bad is watched closely.
  if (!every_step_ && values[1] == 0 && round > 2) {
    interval = std::clamp<int64_t>(static_cast<int64_t>(kTargetSeconds * 1e6) / std::max<int64_t>(values[3], 1), 1,
                                   kMaxInterval);
  }
  next_round_ = round + interval;
  return StepVerdict{values[0] != 0, values[1], values[2]};
}

}  // namespace athanor
