// Checkpoints of one run over all its ranks: when to save, whether to (all ranks alike), and which one to resume from.
//
// Every method but the getters is collective and called on the training thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/checkpoint/file_checkpoint_manager.h"
#include "athanor/checkpoint/policy/save_decision.h"
#include "athanor/config/runner_config.h"
#include "athanor/parallel/membership.h"

namespace athanor {

struct RunCheckpointsOptions {
  Membership members;
  CheckpointCommitter* committer = nullptr;  // null: nothing is saved, and damage is a note alone
  std::string root;
  std::vector<ResumeCandidate> candidates;  // newest first; equal on all ranks
  std::string storage_root, storage;        // see CheckpointManagerOptions
  ProgressCallback on_bytes;
  std::function<PartsWanted()> parts;  // what this rank takes in parts; optional
  // Whether one is none to resume from though it is whole; optional. Asked when its turn comes.
  std::function<bool(const ResumeCandidate& candidate)> passed_over;
  std::function<void(const std::string& text)> note;  // hears of what is passed over; optional
};

// A checkpoint that every rank has read and verified.
struct RestoredRun {
  RestoredState restored;
  ResumeCandidate candidate;
};

// The configuration that a checkpoint was made with. `path` as for CandidateAt(). DATA_LOSS when it holds none.
absl::StatusOr<RunnerConfig> ReadRunnerConfig(const std::string& path);

class RunCheckpoints {
 public:
  static absl::StatusOr<std::unique_ptr<RunCheckpoints>> Create(const RunnerConfig& config,
                                                                RunCheckpointsOptions options);

  // Other ranks, at the start as later: saves in flight are waited for, and those to come are of these ranks. Create()
  // calls it.
  absl::Status Reseat(const Membership& members);

  // The newest candidate that all ranks can read; damaged ones are reported to the committer and described in notes().
  // Nothing when there is no candidate, or all are passed over. UNAVAILABLE (IsStorageUnavailable()) when a rank cannot
  // reach the storage: that says nothing about the checkpoints, and none is passed over for it. DATA_LOSS (kind data)
  // when there are candidates and none is whole. INVALID_ARGUMENT when a candidate was made with a configuration that
  // must not change (every difference is named).
  absl::StatusOr<std::optional<RestoredRun>> Restore();

  // Whether the cadence asks for a checkpoint after this update. No communication.
  bool Due(int64_t step, int64_t epoch, bool epoch_ended) const;
  // DecideSave() with this run's rules and what it has saved. No communication.
  SaveDecision Decide(const SaveArguments& arguments, SaveSituation situation) const;
  bool enabled() const { return manager_ != nullptr; }
  int64_t last_step() const { return last_step_; }  // of the newest save started or restored from here; -1: none

  // Does what was decided, alike on all ranks; skips it on all when a rank has no room (it is still writing, or too
  // many saves wait for their commit) and the decision does not wait. `capture` runs only when it is saved. A name that
  // cannot be written is a note.
  // Under `checkpoint.fail_on_error`: ABORTED on all ranks when an earlier save failed on one of them.
  absl::Status Save(const SaveDecision& decision, const std::function<absl::StatusOr<TrainingState>()>& capture,
                    const SaveRequest& request);
  // False if the last save is of the model alone, which nothing resumes from, and committed files are immutable.
  bool CanSaveBeforeLastEvaluation() const;
  // Whether the state of this step was given to a save, or restored from this run's own checkpoint. Alike on all ranks.
  bool Saved(int64_t step) const { return step >= 0 && step == last_step_; }
  // Attaches an evaluation's results to a step that is Saved(); does nothing for another. Returns at once. No
  // communication.
  void ReportEvaluation(const SaveRequest& request);
  // Waits for the saves in flight. DEADLINE_EXCEEDED when it takes longer than `checkpoint.wait_timeout`. ABORTED as
  // for Save().
  absl::Status Drain();

  // Those skipped here included; `stall_seconds` is all the time that Save() and Drain() took.
  CheckpointStats stats() const;
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  RunCheckpoints(const RunnerConfig& config, RunCheckpointsOptions options);
  void Note(const std::string& text);
  absl::StatusOr<bool> AllRanks(bool mine);
  absl::Status AgreeToRead(const absl::StatusOr<RestoredState>& restored, const ResumeCandidate& candidate);
  absl::Status FailOnError();
  absl::Status SaveAnew(const std::function<absl::StatusOr<TrainingState>()>& capture, const SaveRequest& request,
                        bool model_only);
  absl::Status DrainSaves();
  absl::StatusOr<bool> NamedAgain(const SaveRequest& request);
  bool IsOwn(const ResumeCandidate& candidate) const;
  absl::StatusOr<RestoredState> ReadChecked(const ResumeCandidate& candidate) const;

  const RunnerConfig config_;
  RunCheckpointsOptions options_;
  SaveRules rules_;
  int64_t last_step_ = -1;
  int64_t skipped_ = 0;
  double stall_seconds_ = 0;
  bool last_is_model_only_ = false;
  std::unique_ptr<FileCheckpointManager> manager_;
  std::vector<std::string> notes_;
};

}  // namespace athanor
