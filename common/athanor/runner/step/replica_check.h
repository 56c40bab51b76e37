// Whether all ranks still hold the same weights, bit for bit. Data parallelism rests on it, and nothing else tells:
// each rank would train a model of its own, and a checkpoint would hold that of one of them.
//
// The fingerprints (athanor/parallel/tensor_fingerprint.h) travel with the votes of step_agreement.h; what remains
// is to read the weights once. Not thread-safe; the training thread.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/parallel/membership.h"
#include "athanor/runner/step/step_agreement.h"

namespace athanor {

class ReplicaCheck {
 public:
  static constexpr double kShare = 0.001;  // of the time that training takes
  static constexpr int64_t kMaxInterval = 1000;

  // One rank has nothing to check. `interval`: comm.replica_check_interval. Collective where it is
  // unset: off then unless all ranks have the same kind of processor or device and as many threads, since others round
  // differently.
  static absl::StatusOr<ReplicaCheck> Create(const Membership& members, std::optional<int64_t> interval);
  ReplicaCheck() = default;  // off

  // Why it is off although it was not switched off; "" otherwise.
  const std::string& off_because() const { return off_because_; }
  // Whether to look at the weights in a vote of this round (an attempted update); `last`: there will be no other.
  bool Due(int64_t round, bool last) const { return on_ && (round >= next_round_ || last); }
  // Whether the round needs a vote of its own: with an interval of the user's.
  bool NeedsVote(int64_t round) const { return on_ && interval_ > 0 && round >= next_round_; }

  // What this rank has to say. Throws LibTorch's exceptions.
  void Look(const std::vector<torch::Tensor>& weights, StepVote* vote);
  // After the vote: OK, or (kind our_bug, collective) which ranks differ from the others. `step`: updates of the run.
  absl::Status Judge(const StepVote& mine, const StepVerdict& verdict, int64_t round, int64_t step);

 private:
  absl::Status Difference(int64_t mine, int64_t step) const;

  Membership members_;
  bool on_ = false;
  int64_t interval_ = 0;    // 0: by what it costs
  int64_t next_round_ = 2;  // the first update is slow and says little about the cost
  int64_t alike_at_ = -1;   // step
  std::string off_because_;
};

// Rounds to the next check, 1 to kMaxInterval, so that checks of `check_seconds` take kShare of rounds of
// `round_seconds`.
int64_t RoundsBetweenChecks(double check_seconds, double round_seconds);
// "rank 2 differs from ranks 0, 1, 3", or "ranks 1, 3 differ from …": the most frequent fingerprint is the right one,
// rank 0's among equally frequent ones.
std::string DifferingRanks(const std::vector<int64_t>& fingerprints);

}  // namespace athanor
