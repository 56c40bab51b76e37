// What all ranks decide alike after an attempted update: whether to go on, whether to stop here, whether their weights
// are still the same.
//
//   Boundary boundary(&context);
//   RETURN_IF_ERROR(boundary.Reseat(members));
//   ASSIGN_OR_RETURN(const StepVerdict verdict, boundary.Agree(step, question));
//
// Not thread-safe; the training thread. Reseat() and Agree() are collective.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/parallel/membership.h"
#include "athanor/runner/record/run_measures.h"
#include "athanor/runner/run_context.h"
#include "athanor/runner/step/replica_check.h"
#include "athanor/runner/step/step_agreement.h"
#include "athanor/runner/trainee.h"

namespace athanor {

class Boundary {
 public:
  struct Question {
    int64_t step = 0;     // updates of the run so far
    bool last = false;    // no update follows
    bool needed = false;  // something follows that only agreed ranks may do: an evaluation, a save
    bool stop = false;    // this rank was asked to leave
  };

  // `context` outlives the boundary.
  explicit Boundary(RunContext* context);
  // Collective: whether the ranks' weights can be compared depends on all of them.
  absl::Status Reseat(const Membership& members);

  // After each attempted update. Between votes nothing is known of the other ranks, and nothing stops.
  // FAILED_PRECONDITION (kind nan_loss) on all ranks after max_nonfinite_losses in a row; kind our_bug when their
  // weights differ. `weights`: what all ranks must hold alike.
  absl::StatusOr<StepVerdict> Agree(const StepResult& step, const Question& question, RunMeasures* measures,
                                    const std::function<std::vector<torch::Tensor>()>& weights);

  int64_t round() const { return round_; }  // attempted updates of this process; equal on all ranks
  // Whether the losses and gradients of the last vote were finite: others are no place to come back to.
  bool finite() const { return last_.nonfinite_in_a_row == 0; }

 private:
  absl::Status CheckFinite(const StepVerdict& verdict, int64_t step) const;

  RunContext* const context_;
  StepAgreement agreement_;
  ReplicaCheck replica_check_;
  int64_t round_ = 0;
  int64_t skipped_in_a_row_ = 0;  // without searches for a gradient scale
  StepVerdict last_;
};

}  // namespace athanor
