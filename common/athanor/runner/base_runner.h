// The life of a training run: restore, the loop, evaluation, checkpoints, agreement to stop, the end. What one step
// does is up to the derived class (torch_runner.h).
//
// Not thread-safe: one training thread. Hooks may be asked for their vote from it at any step.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "athanor/checkpoint/local_committer.h"
#include "athanor/checkpoint/policy/save_decision.h"
#include "athanor/config/runner_config.h"
#include "athanor/parallel/process_group.h"
#include "athanor/parallel/topology.h"
#include "athanor/runner/record/run_recorder.h"
#include "athanor/runner/record/score_tracker.h"
#include "athanor/runner/record/workspace.h"
#include "athanor/runner/runner_hooks.h"
#include "athanor/runner/state/run_checkpoints.h"
#include "athanor/runner/state/runner_state.h"
#include "athanor/runner/step/replica_check.h"
#include "athanor/runner/step/step_agreement.h"
#include "athanor/runner/step/step_meters.h"
#include "athanor/runner/watch/heartbeat.h"
#include "athanor/runner/watch/profiler.h"
#include "athanor/runner/watch/supervisor.h"
#include "athanor/runner/watch/telemetry.h"
#include "athanor/runner/watch/watchdog.h"

namespace athanor {

enum class RunOutcome {
  kFinished,   // all steps or epochs done, or stopped early by patience
  kPreempted,  // left as asked, after a checkpoint at a step that all ranks agreed on
};

struct RunResult {
  RunOutcome outcome = RunOutcome::kFinished;
  int64_t step = 0;
  int64_t epoch = 0;
  std::map<std::string, double> metrics;  // last read-outs: "train.loss", "test.accuracy" …
  std::optional<double> best_score;
  int64_t best_step = -1;
  std::vector<std::string>
      notes;  // worth a line in the log: damaged checkpoints passed over, a final evaluation that failed …
};

// What TrainUpdate() has done: one attempted update.
struct StepResult {
  bool updated = true;        // false: left out because of non-finite gradients
  bool scale_search = false;  // left out since float16 gradients overflowed at their scale: no fault of the model
  bool epoch_ended = false;   // the pass over the training data is complete
  int64_t micro_batches = 0;
  int64_t samples = 0;
  StepTimes times;
};

struct BaseRunnerOptions {
  Topology topology;
  ProcessGroup* process_group = nullptr;  // null: one rank
  RunnerHooks* hooks = nullptr;           // null: nobody watches
  // Without hooks, SIGTERM and SIGINT ask Train() to leave at a step boundary, after a checkpoint; a second one ends
  // the process (supervisor.h). Hooks decide themselves.
  bool handle_signals = true;
  // The run's folder (rank 0's counts), from ResolveWorkspace(config, now): results, log, events, heartbeats, and,
  // without a committer, the checkpoints. Unset: resolved when the configuration asks for something that lies in it
  // (NeedsWorkspace()), unless `workspace_from_config` is off; else none of these files.
  std::optional<Workspace> workspace;
  bool workspace_from_config = true;
  CheckpointCommitter* committer = nullptr;  // null: the workspace's; without a workspace no checkpoints
  std::string checkpoint_root;
  // Where the checkpoints' storage is mounted, and its id (athanor/base/storage_id.h): nothing is written while another
  // one is there. Empty: not checked.
  std::string storage_root, storage;
  // Newest first; equal on all ranks. Empty: what config.resume or config.auto_resume say.
  std::vector<ResumeCandidate> resume_candidates;
  absl::Duration hang_timeout = absl::InfiniteDuration();  // nothing finished for so long …
  Watchdog::Callback on_hang;                              // … calls this, once, on another thread
};

class BaseRunner {
 public:
  virtual ~BaseRunner();
  BaseRunner(const BaseRunner&) = delete;

  // Restores, trains to the end or until the ranks agree to stop. Once per runner. Errors carry a failure kind
  // (athanor/torch/status.h): user_code, data, nan_loss, peer_lost, out_of_memory, invalid …
  absl::StatusOr<RunResult> Train();

  // Exact means over all samples of the split, over all ranks: "loss" and the metrics of the forward pass. Collective.
  // NOT_FOUND lists the splits. Restores first when that has not happened yet. `max_batches`: of each rank, from the
  // start of the split, -1 for all; a split that has fewer is evaluated as far as it goes.
  absl::StatusOr<std::map<std::string, double>> Evaluate(const std::string& split, int64_t max_batches = -1);
  // The same for all splits that training evaluates: "val.loss", "val.accuracy", "test.loss" …
  absl::StatusOr<std::map<std::string, double>> Evaluate();

  // Takes the newest whole candidate, else the weights of config.pretrained, once; Train() and Evaluate() do it when it
  // has not been done. Collective. After a restore that has failed, by any of these functions, the state is nobody's:
  // Train(), Evaluate(), Infer() and SaveCheckpoint() try again what is configured and give that error, until one that
  // is whole has been restored or loaded.
  absl::Status Restore();

  // Takes parts of a checkpoint's state, whatever its configuration was, and goes on from there; nothing is restored
  // later. `path` as for CandidateAt() (athanor/checkpoint/checkpoint_reader.h). `parts`: of "model", "ema",
  // "optimizer", "scheduler", "dataloader", "train", "rng"; empty: all. INVALID_ARGUMENT for an unknown part and for
  // one that the checkpoint does not hold. Collective.
  absl::Status LoadCheckpoint(const std::string& path, const std::vector<std::string>& parts = {});

  // Saves the present state when DecideSave() (policy/save_decision.h) says so, and returns its answer; on disk
  // the names are files "<name>.pointer" beside the checkpoint. Under a service the names are the service's, which
  // keeps "latest" and "best". A step that is saved already only gets the names. Without any evaluation so far the
  // state counts as the best. Collective; returns when training may go on. INVALID_ARGUMENT for a name that is none.
  absl::StatusOr<SaveDecision> SaveCheckpoint(const SaveArguments& arguments = {});
  // The state before training, for others to start from; under `name` alone. A note in the result when the run has
  // advanced already.
  absl::Status SaveSeedCheckpoint(const std::string& name = "seed");
  // Waits for the saves in flight. DEADLINE_EXCEEDED when it takes longer than checkpoint.wait_timeout.
  absl::Status WaitForCheckpoints();
  CheckpointStats checkpoint_stats() const { return checkpoints_->stats(); }

  // Everything that a checkpoint would hold, in copies of this rank's own; and back, into a runner of the same model,
  // data and optimizer. Collective, each. INVALID_ARGUMENT and DATA_LOSS name what does not fit.
  absl::StatusOr<TrainingState> StateDict();
  absl::Status LoadStateDict(const TrainingState& state);
  // Counters and random states of now.
  RunnerState CaptureRunnerState() const;

  const TrainState& state() const { return state_; }
  const ProgressReport& progress() const { return progress_; }
  const RunnerConfig& config() const { return config_; }
  // The rows so far, of the main process of a run with a folder; else null.
  const RunResults* results() const { return recorder_ == nullptr ? nullptr : &recorder_->results(); }

 protected:
  BaseRunner(RunnerConfig config, BaseRunnerOptions options);
  // Before anything else; the derived class's factory calls it.
  absl::Status Prepare(std::vector<std::string> evaluate_splits);

  virtual absl::StatusOr<StepResult> TrainUpdate() = 0;
  // After a pass: epoch-interval schedules, the next pass's data. `metric`: for schedules that want one.
  virtual absl::Status EpochEnded(std::optional<double> metric) = 0;
  // What the learning rate's schedule wants to be told after a pass: a metric's name, "" for the score; unset: nothing.
  virtual std::optional<std::string> schedule_monitor() const = 0;
  virtual absl::StatusOr<std::map<std::string, double>> EvaluateSplit(const std::string& split,
                                                                      int64_t max_batches) = 0;
  // Collective where the ranks hold state that only one of them saves.
  virtual absl::StatusOr<TrainingState> CaptureState(bool model_only) = 0;
  // The parts that are not excluded(); `weights_only`: the model, whatever is excluded.
  virtual absl::Status LoadState(const RestoredState& restored, bool weights_only) = 0;
  virtual absl::Status LoadPretrained(const std::string& path) = 0;
  virtual int64_t StepsPerEpoch() const = 0;
  virtual double EpochFraction() const = 0;  // 0 .. 1, of the pass under way
  virtual void ReadStepMetrics(
      std::map<std::string, double>* metrics) = 0;  // "lr", "grad_norm"; may wait for the device
  virtual torch::Device device() const = 0;
  // What every rank must hold alike, bit for bit, after every update: asked for now and then.
  virtual std::vector<torch::Tensor> ReplicatedWeights() const { return {}; }
  // What takes how many bytes: for the report at out-of-memory.
  virtual std::vector<std::pair<std::string, int64_t>> MemoryParts() const { return {}; }

  // What a checkpoint keeps of what was measured: the rows of results (main process) and the last read-out in `meta`,
  // this rank's sums since then in `rank_meta` and `per_rank`. Older checkpoints have nothing of it.
  absl::Status CaptureMeasurements(TrainingState* state);
  absl::Status LoadMeasurements(const RestoredState& restored);

  RunnerConfig config_;
  BaseRunnerOptions options_;
  TrainState state_;
  ElasticState elastic_;
  StepMeters meters_;
  std::unique_ptr<ScoreTracker> score_;
  std::unique_ptr<Watchdog> watchdog_;
  bool excluded(const std::string& part) const { return excluded_.contains(part); }
  // Worth a line in the log, and nothing to worry about; of the main process.
  void Inform(const std::string& text);
  // What this rank does alone and can fail, agreed with the others before the next collective
  // (athanor/parallel/agree_on_status.h); an exception is an error. Every rank calls it.
  absl::Status Together(const char* what, const std::function<absl::Status()>& alone) const;
  // Where asking the others would cost too much: their collectives fail at once, and not at their timeout.
  void LeaveGroup() const;
  // Worth a line in the log, and in RunResult::notes.
  void Note(std::string text);
  // Worth a line at the head of the log, and no more. Before the run's files are opened.
  void Notice(std::string text) { notices_.push_back(std::move(text)); }
  // After each batch of an evaluation: it is alive.
  void MarkEvaluated();
  // `units` of `doing` (a literal) are done: no hang. Any thread.
  void Advance(const char* doing, int64_t units);
  // This rank has done its part and now waits for the others.
  void MarkExchange();
  bool Done() const;  // all steps or epochs, or stopped early
  // Whether the update under way ends a log interval, if it is not left out.
  bool ReadOutFollows() const { return log_interval_ > 0 && (state_.step + 1) % log_interval_ == 0; }

 private:
  absl::Status OpenWorkspace();
  absl::Status FindFolder();
  absl::Status ShareWorkspace();
  absl::Status OpenFiles();
  void OpenProfiler(const Workspace& workspace);
  void OpenHeartbeat(const Workspace& workspace);
  absl::StatusOr<std::vector<ResumeCandidate>> ConfiguredCandidates();
  absl::StatusOr<std::vector<ResumeCandidate>> AutomaticCandidates();
  bool PassedOver(const ResumeCandidate& candidate);
  void CloseWorkspace(const absl::StatusOr<RunResult>& result);
  absl::StatusOr<RunResult> Loop();
  absl::StatusOr<StepResult> WatchedUpdate();
  bool EvaluationDue(const StepResult& step) const;
  int64_t TotalSteps() const;
  absl::StatusOr<StepVerdict> Agree(bool before_save);
  absl::Status AtBoundary(const StepResult& step);
  absl::Status EvaluateAndEndPass(bool evaluate, bool epoch_ended);
  absl::Status SaveBeforeEvaluation(bool epoch_ended, bool last);
  absl::Status SaveAfterEvaluation(bool due);
  absl::StatusOr<bool> EvaluateSplits(bool tolerate_failure);
  void StopEarly();
  void TakeEvaluation(const RestoredState& restored);
  void NoteRecords(const RestoredState& restored, const ResumeCandidate& candidate);
  absl::Status KeepOutcome(const absl::Status& status);
  absl::Status RestoreConfigured();
  absl::Status EvaluateAndRecord(bool tolerate_failure);
  absl::Status RecordTraining();
  absl::StatusOr<std::map<std::string, double>> TrainingSinceRow();
  std::optional<std::string> MonitoredKey() const;
  std::optional<double> Measured(const std::string& key) const;
  absl::Status CheckNames(bool tolerate_failure);
  bool StopAsked() const;
  absl::Status CheckSplits() const;
  absl::StatusOr<double> SumOverRanks(double mine);
  void RefreshCheckpointStats();
  absl::Status LoadMetrics(const TensorMap& per_rank);
  bool LatestIsBest() const { return evaluated_step_ == state_.step && evaluation_is_best_; }
  absl::StatusOr<SaveDecision> Save(SaveArguments arguments, bool is_best, bool must_wait);
  absl::Status ReadOut();
  absl::StatusOr<RunResult> Drain();
  absl::StatusOr<RunResult> Finish();
  RunResult Result(RunOutcome outcome) const;
  const ProgressReport& Refreshed();
  void Report(RunnerPhase phase);

  std::atomic<int64_t> advanced_{0}, exchanges_{0};
  std::atomic<Watchdog*> watching_{nullptr};
  std::string attempt_;  // of this start of the run, on all ranks: for votes
  std::unique_ptr<LocalCommitter> own_committer_;
  std::unique_ptr<RunCheckpoints> checkpoints_;
  std::unique_ptr<RunRecorder> recorder_;  // of the main process
  std::unique_ptr<Heartbeat> heartbeat_;
  std::unique_ptr<Profiler> profiler_;
  std::unique_ptr<StepAgreement> agreement_;
  ReplicaCheck replica_check_;
  std::unique_ptr<Supervisor> supervisor_;  // during Train(), without hooks
  Telemetry telemetry_;
  ProgressReport progress_;
  std::vector<std::string> evaluate_splits_;
  std::vector<std::string> notes_, notices_;
  struct KnownEvaluation {
    int64_t step;
    std::map<std::string, double> results;
  };
  std::optional<KnownEvaluation> known_evaluation_;  // of the step that was restored, by an earlier process
  std::map<std::string, double> evaluation_;         // of evaluated_step_
  nlohmann::json record_positions_;                  // RunRecorder::Positions() of then; null: another beginning
  int64_t evaluated_step_ = -1;
  int64_t recorded_step_ = -1;       // of the last row of results
  int64_t unnamed_checkpoints_ = 0;  // CheckpointStats::unnamed when it was last read
  bool names_checked_ = false;
  bool evaluation_is_best_ = false;
  int64_t round_ = 0;             // attempted updates of this process; equal on all ranks
  int64_t skipped_in_a_row_ = 0;  // without searches for a gradient scale
  int64_t log_interval_ = 0;
  std::set<std::string> excluded_;  // from loading: checkpoint.exclude_from_loading, or what LoadCheckpoint() left out
  bool automatic_candidates_ = false;  // from config.auto_resume
  bool restored_ = false;
  absl::Status restore_error_;  // of the last restore or load
  bool trained_ = false;
  StepVerdict verdict_;
};

}  // namespace athanor
