// The evaluations of a training: every split that is evaluated, and what follows from the numbers: the score, the best
// step, patience.
//
//   Evaluation evaluation(&context, trainee, {"val"});
//   ASSIGN_OR_RETURN(const Evaluation::Outcome found, evaluation.Run(&state, step_is_last));
//
// Not thread-safe; the training thread. Run() is collective.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/runner/record/score_tracker.h"
#include "athanor/runner/run_context.h"
#include "athanor/runner/trainee.h"

namespace athanor {

class Evaluation {
 public:
  using Results = std::map<std::string, double>;  // "val.loss", "val.accuracy" …
  struct Outcome {
    bool is_best = false;
    // The numbers, which are all finite, are all that the evaluation has changed, so that a resume may take them in its
    // place.
    bool repeatable = false;
  };

  // `context` and `trainee` outlive it.
  Evaluation(RunContext* context, Trainee* trainee, std::vector<std::string> splits);
  // INVALID_ARGUMENT where the configuration names what no split can give.
  absl::Status Check() const;

  const std::vector<std::string>& splits() const { return splits_; }
  bool none() const { return splits_.empty(); }
  // Whether an evaluation is due after this update, which was attempted at `step` updates.
  bool Due(const StepResult& update, int64_t step) const;

  // Evaluates at state->step; may set state->monitored and state->stopped_early. `tolerant`: a split that fails is a
  // note, since the training is over; a lost peer is an error in any case.
  absl::StatusOr<Outcome> Run(TrainState* state, bool tolerant);
  // Whether the state of `step` has been evaluated; and then the numbers, and whether they are the best so far.
  bool Knows(int64_t step) const { return step == step_; }
  const Results& results() const { return results_; }
  bool BestAt(int64_t step) const { return Knows(step) && is_best_; }
  void Forget() { step_ = -1; }

  // The evaluation of `step` that an earlier process made: Run() takes it in place of one. `config`: what it was made
  // with. Taken only where it measured all that is wanted now.
  void Offer(int64_t step, const Results& results, const nlohmann::json& config);
  // Collective: every rank has one, or none does.
  absl::Status AgreeOnOffer();
  bool offered() const { return offered_.has_value(); }

  ScoreTracker& score() { return score_; }
  const ScoreTracker& score() const { return score_; }

 private:
  struct Known {
    int64_t step;
    Results results;
  };
  absl::StatusOr<bool> MeasureSplits(int64_t step, bool tolerant);
  absl::Status CheckNames(bool tolerant);
  std::optional<std::string> MonitoredKey() const;
  std::optional<double> Measured(const std::string& key) const;
  void StopEarly(TrainState* state);

  RunContext* const context_;
  Trainee* const trainee_;
  const std::vector<std::string> splits_;
  ScoreTracker score_;
  std::optional<Known> offered_;
  Results results_;  // of step_
  int64_t step_ = -1;
  bool is_best_ = false;
  bool names_checked_ = false;
};

}  // namespace athanor
