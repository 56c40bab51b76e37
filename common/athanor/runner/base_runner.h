// A run that one program starts: restore, train, evaluate, save. What one step does is up to the derived class
// (torch_runner.h); how a run goes is training_run.h.
//
// Not thread-safe: one training thread. Hooks may be asked for their vote from it at any step.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/checkpoint/policy/save_decision.h"
#include "athanor/config/runner_config.h"
#include "athanor/runner/record/run_results.h"
#include "athanor/runner/run_options.h"
#include "athanor/runner/state/runner_state.h"
#include "athanor/runner/trainee.h"

namespace athanor {

class TrainingRun;

class BaseRunner : protected Trainee {
 public:
  ~BaseRunner() override;
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
  CheckpointStats checkpoint_stats() const;

  // Everything that a checkpoint would hold, in copies of this rank's own; and back, into a runner of the same model,
  // data and optimizer. Collective, each. INVALID_ARGUMENT and DATA_LOSS name what does not fit.
  absl::StatusOr<TrainingState> StateDict();
  absl::Status LoadStateDict(const TrainingState& state);
  // Counters and random states of now.
  RunnerState CaptureRunnerState() const;

  const TrainState& state() const;
  const ProgressReport& progress() const;
  const RunnerConfig& config() const;
  // The rows so far, of the main process of a run with a folder; else null.
  const RunResults* results() const;

 protected:
  BaseRunner(RunnerConfig config, BaseRunnerOptions options, const torch::Device& device);
  TrainingRun& run() const { return *run_; }

 private:
  std::unique_ptr<TrainingRun> run_;
};

}  // namespace athanor
