// Where a run starts from: the newest whole checkpoint among the candidates, weights, or nothing; and whether that went
// well. A state that was not restored, or in part only, is nobody's to train, evaluate or save: the error stays until a
// whole one was taken.
//
//   Resume resume(&context, trainee, {.candidates = options.resume_candidates});
//   RETURN_IF_ERROR(resume.FindCandidates(root, workspace));
//   ASSIGN_OR_RETURN(auto taken, resume.Restore(&checkpoints, &state));
//
// Not thread-safe; the training thread. Restore() and Load() are collective.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/runner/evaluation.h"
#include "athanor/runner/record/workspace.h"
#include "athanor/runner/run_context.h"
#include "athanor/runner/state/run_checkpoints.h"
#include "athanor/runner/state/run_state.h"
#include "athanor/runner/trainee.h"

namespace athanor {

class Resume {
 public:
  // `candidates`: newest first; empty: what config.resume or config.auto_resume say. `context` and `trainee` outlive
  // this object.
  Resume(RunContext* context, Trainee* trainee, std::vector<ResumeCandidate> candidates);

  // What this rank sees; `root` is where its checkpoints lie, "" for nowhere.
  absl::Status FindCandidates(const std::string& root, const std::optional<Workspace>& workspace);
  const std::vector<ResumeCandidate>& candidates() const { return candidates_; }
  // Of those that auto_resume has found: one of the model alone. One that is named is refused instead.
  bool PassedOver(const ResumeCandidate& candidate);

  // Takes what is configured, once; does nothing when that has gone well before. What an earlier process has evaluated
  // at the restored step is offered to `evaluation`.
  absl::Status Restore(RunCheckpoints* checkpoints, RunState* state, Evaluation* evaluation);
  // Takes `parts` (empty: all) of the checkpoint at `path`, whatever its configuration was.
  absl::Status Load(const std::string& path, const std::vector<std::string>& parts, RunState* state);
  // Takes a state by hand.
  absl::Status LoadState(const RestoredState& restored, RunState* state);

  bool done() const { return done_; }
  const absl::Status& error() const { return error_; }
  // RunRecorder::Positions() of the step that was taken, for RunRecorder::Begin(); null: another beginning.
  const nlohmann::json& record_positions() const { return record_positions_; }

 private:
  absl::StatusOr<std::vector<ResumeCandidate>> Configured(const std::string& root,
                                                          const std::optional<Workspace>& workspace);
  absl::Status RestoreConfigured(RunCheckpoints* checkpoints, RunState* state, Evaluation* evaluation);
  absl::Status KeepOutcome(const absl::Status& status);
  void NoteRecords(const RestoredState& restored, const ResumeCandidate& candidate, const StateParts& parts);
  StateParts ConfiguredParts() const;

  RunContext* const context_;
  Trainee* const trainee_;
  std::vector<ResumeCandidate> candidates_;
  std::string root_;
  bool automatic_ = false;  // the candidates are those of config.auto_resume
  bool done_ = false;
  absl::Status error_;  // of the last restore or load
  nlohmann::json record_positions_;
};

}  // namespace athanor
