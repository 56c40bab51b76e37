#include "athanor/runner/step/step_agreement.h"

#include <algorithm>
#include <cmath>

#include "athanor/base/status_macros.h"
#include "athanor/parallel/process_group.h"

namespace athanor {

void StepAgreement::Reseat(const Membership& members) {
  members_ = members;
  every_step_ = !device_waits_ && (members.group() == nullptr || members.group()->host_memory() != nullptr);
  next_round_ = 0;
}

absl::StatusOr<StepVerdict> StepAgreement::Vote(const StepVote& vote, int64_t round) {
  const auto nanos = [](double seconds) { return static_cast<int64_t>(std::max(seconds, 0.0) * 1e9); };
  std::vector<int64_t> values = {vote.stop ? 1 : 0,        vote.nonfinite_in_a_row, vote.nonfinite_total,
                                 nanos(vote.step_seconds), vote.fingerprint,        nanos(vote.fingerprint_seconds)};
  bool replicas_differ = false;
  if (members_.several()) {
    ASSIGN_OR_RETURN(Agreement agreement, members_.group()->AllAgree(values));
    replicas_differ = agreement.min[4] != agreement.max[4];
    values = std::move(agreement.max);
  }
  int64_t interval = 1;
  // The first steps are slow and say little; a loss that went bad is watched closely.
  if (!every_step_ && values[1] == 0 && round > 2) {
    interval = std::clamp<int64_t>(static_cast<int64_t>(kTargetSeconds * 1e9) / std::max<int64_t>(values[3], 1), 1,
                                   kMaxInterval);
  }
  next_round_ = round + interval;
  return StepVerdict{.stop = values[0] != 0,
                     .nonfinite_in_a_row = values[1],
                     .nonfinite_total = values[2],
                     .replicas_differ = replicas_differ,
                     .step_seconds = static_cast<double>(values[3]) * 1e-9,
                     .fingerprint_seconds = static_cast<double>(values[5]) * 1e-9};
}

}  // namespace athanor
