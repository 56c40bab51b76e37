// What all ranks must decide alike at a step boundary: whether to stop, whether the loss has been non-finite for too
// long.
//
// The ranks exchange a handful of numbers every k steps; k is chosen from their own agreed step time, so that a vote
// costs nothing to speak of and is heard within about 20 ms or one step. Through shared memory k is 1.
//
//   if (agreement.Due(step)) {
//     ASSIGN_OR_RETURN(StepVerdict verdict, agreement.Vote({stop, in_a_row, total, seconds}, step));
//   }
//
// Not thread-safe. Vote() is collective.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "athanor/parallel/membership.h"

namespace athanor {

struct StepVote {
  bool stop = false;
  int64_t nonfinite_in_a_row = 0;
  int64_t nonfinite_total = 0;
  double step_seconds = 0;         // mean
  int64_t fingerprint = 0;         // of the weights, >= 0; all ranks look at them in the same rounds
  double fingerprint_seconds = 0;  // what looking took
};

struct StepVerdict {
  bool stop = false;               // any rank's vote
  int64_t nonfinite_in_a_row = 0;  // worst rank
  int64_t nonfinite_total = 0;
  bool replicas_differ = false;  // not all fingerprints are the same
  double step_seconds = 0;       // of the slowest rank, as the next
  double fingerprint_seconds = 0;
};

class StepAgreement {
 public:
  static constexpr int64_t kMaxInterval = 16;
  static constexpr double kTargetSeconds = 0.02;

  // `device_waits`: reading a loss makes this rank wait for its device.
  explicit StepAgreement(bool device_waits) : device_waits_(device_waits) {}
  // Before the first vote, and when the ranks change.
  void Reseat(const Membership& members);

  bool Due(int64_t round) const { return round >= next_round_; }
  absl::StatusOr<StepVerdict> Vote(const StepVote& vote, int64_t round);

 private:
  const bool device_waits_;
  Membership members_;
  bool every_step_ = true;
  int64_t next_round_ = 0;
};

}  // namespace athanor
