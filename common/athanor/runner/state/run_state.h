// The state of a run as a checkpoint holds it: what the trainee keeps, and around it the run's own counters, its best
// score, what was measured and the rows of results.
//
// Not thread-safe; the training thread.
#pragma once

#include <string>
#include <utility>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/checkpoint/training_state.h"
#include "athanor/runner/record/run_measures.h"
#include "athanor/runner/record/run_recorder.h"
#include "athanor/runner/record/score_tracker.h"
#include "athanor/runner/run_context.h"
#include "athanor/runner/state/runner_state.h"
#include "athanor/runner/trainee.h"

namespace athanor {

// What is still to be done at a step when its state is captured: a resume does it first.
struct PendingWork {
  bool evaluation = false;
  bool pass_end = false;
};

class RunState {
 public:
  TrainState train;
  ElasticState elastic;

  // All outlive this object; `recorder` may be null.
  RunState(RunContext* context, Trainee* trainee, RunMeasures* measures);
  void Keep(ScoreTracker* score, RunRecorder* recorder);
  RunMeasures& measures() { return *measures_; }
  const RunRecorder* recorder() const { return recorder_; }

  // Collective where the trainee's is.
  absl::StatusOr<TrainingState> Capture(bool model_only, const PendingWork& pending);
  absl::Status Load(const RestoredState& restored, const StateParts& parts);
  // Of the state that was loaded last; nothing is pending afterwards.
  PendingWork TakePending() { return std::exchange(pending_, {}); }

 private:
  absl::Status CaptureMeasurements(TrainingState* state) const;
  absl::Status LoadCounters(const nlohmann::json& meta);
  absl::Status LoadMeasurements(const RestoredState& restored);

  RunContext* const context_;
  Trainee* const trainee_;
  RunMeasures* const measures_;
  ScoreTracker* score_ = nullptr;
  RunRecorder* recorder_ = nullptr;
  PendingWork pending_;
};

}  // namespace athanor
