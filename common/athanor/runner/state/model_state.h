// What a checkpoint holds of the model, its optimizer, its data and its random states; and back.
//
// Not thread-safe; the training thread. Capture() is collective.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/checkpoint/training_state.h"
#include "athanor/runner/run_context.h"
#include "athanor/runner/step/run_data.h"
#include "athanor/runner/step/trained_model.h"
#include "athanor/runner/trainee.h"

namespace athanor {

class ModelState {
 public:
  // All outlive this object. `seed`: the run's, which a restored state may replace.
  ModelState(RunContext* context, TrainedModel* trained, RunData* data, uint64_t* seed)
      : context_(context), trained_(trained), data_(data), seed_(seed) {}

  absl::StatusOr<TrainingState> Capture(bool model_only) const;
  absl::Status Load(const RestoredState& restored, const StateParts& parts, int64_t step);
  // The model from the checkpoint or weights file at `path`, and nothing else.
  absl::Status LoadPretrained(const std::string& path);
  // What of a checkpoint this rank takes in parts; null: all of it whole.
  PartsWanted Wanted() const;

 private:
  absl::Status CheckParameters() const;
  void CaptureModel(TrainingState* state) const;
  void CaptureOptimizer(TrainingState* state) const;
  absl::StatusOr<TensorMap> OptimizerTensors(const TrainingState& state) const;
  absl::Status LoadModel(const TrainingState& state);
  absl::Status LoadDivided(const TrainingState& state, std::map<std::string, torch::Tensor>* model);
  absl::Status LoadTraining(const RestoredState& restored, const StateParts& parts, int64_t step);
  absl::Status LoadRandomStates(const RestoredState& restored);
  absl::Status LoadDataPosition(const nlohmann::json& meta);
  absl::Status EndPassOf(const nlohmann::json& meta, const StateParts& parts, int64_t step);
  bool OnlyModelWanted(const StateParts& parts) const;

  RunContext* const context_;
  TrainedModel* const trained_;
  RunData* const data_;
  uint64_t* const seed_;
};

}  // namespace athanor
