// What a TorchRunner trains, put together: the model, its data, and the parts that run one update, one evaluation, one
// inference over them.
//
//   TorchTraining training(run, &steps, std::move(options));
//   RETURN_IF_ERROR(training.Build());          // collective
//
// Not thread-safe; the training thread.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/parallel/membership.h"
#include "athanor/runner/state/model_state.h"
#include "athanor/runner/step/closure_window.h"
#include "athanor/runner/step/inference.h"
#include "athanor/runner/step/run_data.h"
#include "athanor/runner/step/split_evaluator.h"
#include "athanor/runner/step/torch_options.h"
#include "athanor/runner/step/torch_steps.h"
#include "athanor/runner/step/trained_model.h"
#include "athanor/runner/step/update_window.h"
#include "athanor/runner/training_run.h"

namespace athanor {

class TorchTraining {
 public:
  // `run` and `steps` outlive this object.
  TorchTraining(TrainingRun* run, TorchSteps* steps, TorchRunnerOptions options);

  // INVALID_ARGUMENT (kind invalid) names what is missing or contradictory.
  static absl::Status CheckOptions(const RunnerConfig& config, const TorchRunnerOptions& options);
  // Makes everything, in the order in which its parts need each other, and prepares the run. Collective.
  absl::Status Build();
  // Seats all that know the ranks: here for the first time, later when the ranks change. Collective.
  absl::Status Reseat(const Membership& members);

  absl::StatusOr<StepResult> Update();
  // `options.forward` under autocast, its output checked.
  StepOutput Forward(const Batch& batch) const;
  torch::Tensor Predict(const Batch& batch) const;
  bool predicts() const { return options_.predict != nullptr; }

  TrainedModel& trained() { return trained_; }
  RunData& data() { return data_; }
  UpdateWindow& window() { return window_; }
  SplitEvaluator& evaluator() { return evaluator_; }
  Inference& inference() { return inference_; }
  ModelState& state() { return state_; }
  uint64_t seed() const { return seed_; }

 private:
  absl::Status ResolveSeed();
  absl::Status MakeModel();
  absl::Status MoveModel();
  absl::Status BuildTraining();
  absl::Status BuildAcceleration();
  void BuildStepGraph();
  absl::Status SeatStrategy(const Membership& members);
  absl::Status BuildOptimizer();
  NamedTensors Owned() const;
  absl::StatusOr<std::unique_ptr<MetricSet>> MakeMetrics() const;

  TrainingRun* const run_;
  RunContext* const context_;
  TorchRunnerOptions options_;
  uint64_t seed_ = 0;
  TrainedModel trained_;
  RunData data_;
  UpdateWindow window_;
  ClosureWindow closure_;
  std::shared_ptr<MeterSync> meter_sync_;
  SplitEvaluator evaluator_;
  Inference inference_;
  ModelState state_;
};

}  // namespace athanor
