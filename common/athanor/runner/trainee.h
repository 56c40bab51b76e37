// What is trained, as the loop sees it: an update, an evaluation, a state to keep. The loop (training_run.h) knows
// neither models nor data.
//
// One training thread.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/checkpoint/training_state.h"
#include "athanor/runner/runner_hooks.h"

namespace athanor {

// What TrainUpdate() has done: one attempted update.
struct StepResult {
  bool updated = true;        // false: left out because of non-finite gradients
  bool scale_search = false;  // left out since float16 gradients overflowed at their scale: no fault of the model
  bool epoch_ended = false;   // the pass over the training data is complete
  int64_t micro_batches = 0;
  int64_t samples = 0;
  StepTimes times;
};

// What is taken from a checkpoint.
struct StateParts {
  std::set<std::string> left_out;  // of kCheckpointParts (athanor/config/derived_options.h)
  bool weights_only = false;       // the model, whatever is left out
  bool takes(const std::string& part) const { return !left_out.contains(part); }
};

class Trainee {
 public:
  virtual ~Trainee() = default;

  virtual absl::StatusOr<StepResult> TrainUpdate() = 0;
  // After a pass: epoch-interval schedules, the next pass's data. `metric`: for schedules that want one.
  virtual absl::Status EpochEnded(std::optional<double> metric) = 0;
  // What the learning rate's schedule wants to be told after a pass: a metric's name, "" for the score; unset: nothing.
  virtual std::optional<std::string> schedule_monitor() const = 0;
  virtual absl::StatusOr<std::map<std::string, double>> EvaluateSplit(const std::string& split,
                                                                      int64_t max_batches) = 0;
  // The model, and what else decides how it is trained on; not the run's own counters. Collective where the ranks hold
  // state that only one of them saves.
  virtual absl::StatusOr<TrainingState> CaptureState(bool model_only) = 0;
  virtual absl::Status LoadState(const RestoredState& restored, const StateParts& parts) = 0;
  virtual absl::Status LoadPretrained(const std::string& path) = 0;
  virtual int64_t StepsPerEpoch() const = 0;
  virtual double EpochFraction() const = 0;  // 0 .. 1, of the pass under way
  // "lr", "grad_norm"; may wait for the device.
  virtual void ReadStepMetrics(std::map<std::string, double>* metrics) = 0;
  // What of a checkpoint this rank takes in parts; null: all of it whole.
  virtual PartsWanted WantedParts() const { return {}; }
  // What every rank must hold alike, bit for bit, after every update: asked for now and then.
  virtual std::vector<torch::Tensor> ReplicatedWeights() const { return {}; }
  // What takes how many bytes: for the report at out-of-memory.
  virtual std::vector<std::pair<std::string, int64_t>> MemoryParts() const { return {}; }
};

}  // namespace athanor
