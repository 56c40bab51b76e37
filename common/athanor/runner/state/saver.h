// When a run saves what, and under which names; and how many checkpoints it has. Whether a save is due, wanted and
// possible is decided in one place (athanor/checkpoint/policy/save_decision.h); the files are RunCheckpoints'.
//
//   Saver saver(&context, &checkpoints, capture);
//   ASSIGN_OR_RETURN(const SaveDecision decision, saver.Save({.force = true}, {.state = state}, /*must_wait=*/true));
//
// Not thread-safe; the training thread. All but the getters are collective.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/checkpoint/policy/save_decision.h"
#include "athanor/runner/run_context.h"
#include "athanor/runner/state/run_checkpoints.h"
#include "athanor/runner/state/run_state.h"

namespace athanor {

class Saver {
 public:
  using Capture = std::function<absl::StatusOr<TrainingState>(bool model_only, const PendingWork& pending)>;
  // Where the run stands when it saves.
  struct Moment {
    const TrainState& state;
    double epoch_fraction = 0;
    bool finite = true;  // losses and gradients: others are no place to come back to
    bool is_best = false;
    const std::map<std::string, double>* results = nullptr;  // of the evaluation of this step; null: none
    PendingWork pending;
  };

  // `context` outlives the saver.
  Saver(RunContext* context, std::unique_ptr<RunCheckpoints> checkpoints, Capture capture);

  RunCheckpoints& checkpoints() { return *checkpoints_; }
  // Whether the cadence asks for a checkpoint after this update. No communication.
  bool Due(const TrainState& state, bool epoch_ended) const;

  // Saves when DecideSave() says so, and returns its answer. `must_wait`: for room, instead of leaving this one out.
  absl::StatusOr<SaveDecision> Save(SaveArguments arguments, const Moment& moment, bool must_wait);
  // Whatever the evaluation does to this process, the training is on disk; what it measures is attached afterwards.
  // `last`: no update follows.
  absl::Status SaveBeforeEvaluation(Moment moment, bool last);
  // Attaches results to the checkpoint of their step, if there is one.
  void ReportEvaluation(int64_t step, const std::map<std::string, double>& results, bool is_best, bool repeatable);
  absl::Status Drain() { return checkpoints_->Drain(); }

  // Into the report; what failed since the last call becomes a note.
  void RefreshStats();

 private:
  RunContext* const context_;
  const std::unique_ptr<RunCheckpoints> checkpoints_;
  const Capture capture_;
  int64_t unnamed_ = 0;  // CheckpointStats::unnamed when it was last read
};

}  // namespace athanor
