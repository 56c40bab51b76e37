// What training measures, put on record: read-outs now and then, rows of results.
//
// Not thread-safe; the training thread. All but the questions are collective.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "athanor/runner/record/run_files.h"
#include "athanor/runner/record/run_measures.h"
#include "athanor/runner/run_context.h"
#include "athanor/runner/state/runner_state.h"
#include "athanor/runner/trainee.h"

namespace athanor {

class RunJournal {
 public:
  // All outlive this object.
  RunJournal(RunContext* context, Trainee* trainee, RunMeasures* measures, RunFiles* files)
      : context_(context), trainee_(trainee), measures_(measures), files_(files) {}
  // How long the run is, which decides how often it is read out.
  void Start(int64_t total_updates);

  bool ReadOutAt(int64_t step) const { return interval_ > 0 && step % interval_ == 0; }
  // The loss, the metrics and what the device holds, into the report and the run's files.
  absl::Status ReadOut(const TrainState& state);
  // A row: what an evaluation has measured ("val.loss"; nothing where nothing is evaluated), and what training has
  // since the row before. `evaluated` false: only if there is none of this step yet.
  absl::Status AddRow(const TrainState& state, const std::map<std::string, double>& results, bool evaluated,
                      bool is_best);

 private:
  absl::Status MeasureTraining(RunMeasures::BySplit* training);

  RunContext* const context_;
  Trainee* const trainee_;
  RunMeasures* const measures_;
  RunFiles* const files_;
  int64_t interval_ = 0;   // updates between read-outs; 0: none
  int64_t row_step_ = -1;  // of the last row
};

}  // namespace athanor
