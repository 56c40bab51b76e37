// The life of a training run: restore, the loop, evaluation, checkpoints, agreement to stop, the end. What an update
// does is the trainee's (trainee.h); each part below owns its own state.
//
//   TrainingRun run(config, options, device, trainee);
//   RETURN_IF_ERROR(run.Prepare({"val"}));
//   ASSIGN_OR_RETURN(RunResult result, run.Train());
//
// Not thread-safe: one training thread. Hooks may be asked for their vote from it at any step.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/runner/boundary.h"
#include "athanor/runner/evaluation.h"
#include "athanor/runner/record/run_files.h"
#include "athanor/runner/record/run_journal.h"
#include "athanor/runner/record/run_measures.h"
#include "athanor/runner/run_context.h"
#include "athanor/runner/run_options.h"
#include "athanor/runner/state/resume.h"
#include "athanor/runner/state/run_state.h"
#include "athanor/runner/state/saver.h"
#include "athanor/runner/trainee.h"
#include "athanor/runner/watch/supervisor.h"

namespace athanor {

class TrainingRun {
 public:
  // `trainee` outlives the run.
  TrainingRun(RunnerConfig config, BaseRunnerOptions options, const torch::Device& device, Trainee* trainee);
  // Before anything else; `evaluated`: names of splits. Collective.
  absl::Status Prepare(const std::vector<std::string>& evaluated);
  // Seats what agrees and what saves, at the start by Prepare(), later when the ranks change. Collective.
  absl::Status Reseat(const Membership& members);

  // What the functions of BaseRunner with these names say.
  absl::StatusOr<RunResult> Train();
  absl::Status Restore();

  RunContext& context() { return context_; }
  RunState& state() { return state_; }
  Evaluation& evaluation() { return *evaluation_; }
  Saver& saver() { return *saver_; }
  Resume& resume() { return resume_; }
  bool Done() const;  // all steps or epochs, or stopped early
  // Whether the update under way is read out, if it is not left out.
  bool ReadOutFollows() const { return journal_.ReadOutAt(state_.train.step + 1); }
  // Where the run stands, for a save.
  Saver::Moment Now(bool is_best) const;

 private:
  RunCheckpointsOptions Checkpointing();
  absl::StatusOr<RunResult> Loop();
  absl::Status Begin();
  absl::StatusOr<StepResult> Update();
  absl::StatusOr<bool> AtBoundary(const StepResult& step);
  absl::Status EvaluateAndEndPass(bool evaluate, bool epoch_ended);
  absl::Status EvaluateAndRecord(bool tolerant);
  absl::Status SaveAfterEvaluation(bool due);
  absl::StatusOr<RunResult> Drain();
  absl::StatusOr<RunResult> Finish();
  RunResult Result(RunOutcome outcome) const;
  void Publish(RunnerPhase phase);
  void Close(const absl::StatusOr<RunResult>& result);

  RunContext context_;
  BaseRunnerOptions options_;
  Trainee* const trainee_;
  RunMeasures measures_;
  RunState state_;
  RunFiles files_;
  RunJournal journal_;
  Resume resume_;
  Boundary boundary_;
  std::unique_ptr<Evaluation> evaluation_;
  std::unique_ptr<Saver> saver_;
  std::unique_ptr<Supervisor> supervisor_;  // during Train(), without hooks
  bool trained_ = false;
};

}  // namespace athanor
