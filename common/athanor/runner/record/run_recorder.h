// What a run leaves for people to read, in its workspace: results.json, latest.json, best.json, a log, TensorBoard
// events, metrics.csv and metrics.jsonl (metrics_log.h), metadata and, at the end, summary.json. The main process has
// one.
//
//   ASSIGN_OR_RETURN(auto recorder, RunRecorder::Open(config, workspace, /*evaluate_splits=*/{"val"}));
//   recorder->Step(progress);                                        // at read-outs
//   recorder->Evaluated(progress, {{"val.loss", 0.4}}, {{"train", {{"loss", 0.3}}}}, /*is_best=*/true);
//   recorder->Finish("finished", progress, /*error=*/"");
//
// Training never fails because of these files: the first error is in error(), later ones are silent. Log lines are
// "2026-11-23 20:15:00,123 [INFO] training on train [120/6000]\tloss: 0.0312\t…", numbers with 4 decimals; with
// config.console they are on standard error too. Not thread-safe.
#pragma once

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "athanor/config/runner_config.h"
#include "athanor/runner/record/event_writer.h"
#include "athanor/runner/record/metrics_log.h"
#include "athanor/runner/record/run_console.h"
#include "athanor/runner/record/run_results.h"
#include "athanor/runner/record/workspace.h"
#include "athanor/runner/runner_hooks.h"

namespace athanor {

class RunRecorder {
 public:
  // Writes the metadata; opens the log (config.log), the event file (config.tensorboard) and the tables (config.csv,
  // config.jsonl).
  static absl::StatusOr<std::unique_ptr<RunRecorder>> Open(const RunnerConfig& config, Workspace workspace,
                                                           const std::vector<std::string>& evaluate_splits,
                                                           const std::vector<std::string>& trained_splits = {"train"});
  ~RunRecorder();

  // The loss, learning rate and other metrics of the training read-out at progress.step; `split`: the trained one.
  void Step(const ProgressReport& progress, const std::string& split = "train");
  // A row of results: an evaluation (`metrics` by "split.name", none where nothing is evaluated), and what training has
  // measured since the row before (`training`, by split and name). Its index is the step; in a run that is counted in
  // epochs and evaluated after each, the number of epochs done. `is_best`: best.json is this row.
  void Evaluated(const ProgressReport& progress, const std::map<std::string, double>& metrics,
                 const std::map<std::string, std::map<std::string, double>>& training, bool is_best);
  void Note(absl::string_view level, absl::string_view text);  // "INFO", "WARNING", "ERROR"
  // `outcome`: "finished", "preempted", "failed". Adds duration, counters and the best and latest results.
  void Finish(absl::string_view outcome, const ProgressReport& progress, absl::string_view error);

  // Where the record files stand, for a checkpoint.
  nlohmann::json Positions() const;
  // Training begins, before its first row. `positions`: those that the checkpoint at `step` kept, when it is one of
  // this run's own: rows that came after it go, events go on in its folder, the result files are those of then.
  // `evaluated`: what is to be recorded of `step` itself stands there already. Null: another beginning, for which the
  // rows that are there are set aside.
  void Begin(const nlohmann::json& positions, int64_t step, bool evaluated);

  const RunResults& results() const { return results_; }
  // Rows of an earlier process of the same run, from its results().ToJson(): they stand before the rows to come.
  absl::Status RestoreResults(const nlohmann::json& rows) { return results_.FromJson(rows); }
  const Workspace& workspace() const { return workspace_; }
  absl::Status error() const { return error_; }

 private:
  RunRecorder(const RunnerConfig& config, Workspace workspace, const std::vector<std::string>& evaluate_splits,
              const std::vector<std::string>& trained_splits);
  int64_t IndexOf(const ProgressReport& progress) const;
  void Scalars(const std::map<std::string, double>& metrics, const ProgressReport& progress);
  void ContinueEvents(const std::string& name, int64_t step);
  void Keep(const absl::Status& status);

  const Workspace workspace_;
  std::string events_folder_;
  const bool by_epoch_;
  const std::vector<std::string> trained_;  // names of what is trained on
  const absl::Time started_;
  RunResults results_;
  std::unique_ptr<EventWriter> events_;
  std::vector<std::unique_ptr<MetricsLog>> logs_;
  std::FILE* log_ = nullptr;
  std::unique_ptr<RunConsole> console_;
  int64_t recorded_step_ = -1;  // its evaluation stands in the tables already
  absl::Status error_;
};

}  // namespace athanor
