#include "athanor/runner/boundary.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/torch/status.h"

namespace athanor {

Boundary::Boundary(RunContext* context) : context_(context), agreement_(!context->device.is_cpu()) {}

absl::Status Boundary::Reseat(const Membership& members) {
  agreement_.Reseat(members);
  ASSIGN_OR_RETURN(replica_check_, ReplicaCheck::Create(members, context_->config.comm.replica_check_interval));
  if (!replica_check_.off_because().empty()) context_->notes.Tell(Note::kProblem, replica_check_.off_because());
  return absl::OkStatus();
}

absl::StatusOr<StepVerdict> Boundary::Agree(const StepResult& step, const Question& question, RunMeasures* measures,
                                            const std::function<std::vector<torch::Tensor>()>& weights) {
  if (step.updated) skipped_in_a_row_ = 0;
  if (!step.updated && !step.scale_search) ++skipped_in_a_row_;
  ++round_;
  if (!agreement_.Due(round_) && !question.needed && !question.last && !replica_check_.NeedsVote(round_)) {
    last_ = StepVerdict{.nonfinite_total = last_.nonfinite_total};
    return last_;
  }
  RETURN_IF_ERROR(context_->Alone("reading the losses", [&] { measures->Collect(); }));
  StepVote vote;
  vote.stop = question.stop;
  vote.nonfinite_in_a_row = std::max(measures->nonfinite_in_a_row(), skipped_in_a_row_);
  vote.nonfinite_total = measures->nonfinite_total();
  vote.step_seconds = context_->progress.step_seconds();
  context_->progress.MarkExchange();
  const bool compare = replica_check_.Due(round_, question.last);
  if (compare) {
    RETURN_IF_ERROR(context_->Alone("comparing the ranks' weights", [&] { replica_check_.Look(weights(), &vote); }));
  }
  ASSIGN_OR_RETURN(last_, agreement_.Vote(vote, round_));
  context_->progress.report().nonfinite_losses = last_.nonfinite_total;
  RETURN_IF_ERROR(CheckFinite(last_, question.step));
  if (compare) RETURN_IF_ERROR(replica_check_.Judge(vote, last_, round_, question.step));
  return last_;
}

absl::Status Boundary::CheckFinite(const StepVerdict& verdict, int64_t step) const {
  const int64_t limit = context_->config.max_nonfinite_losses;
  if (verdict.nonfinite_in_a_row < limit) return absl::OkStatus();
  return WithFailureKind(
      absl::FailedPreconditionError(absl::StrCat("training: ", verdict.nonfinite_in_a_row,
                                                 " losses or gradients in a row were not finite, up to step ", step,
                                                 " (max_nonfinite_losses is ", limit, ")")),
      FailureKind::kNanLoss);
}

}  // namespace athanor
