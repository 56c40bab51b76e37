// Evaluates a split: forward passes without gradients over this rank's samples, means over all ranks.
//
// Not thread-safe; the training thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/metrics/metric_set.h"
#include "athanor/runner/run_context.h"
#include "athanor/runner/step/run_data.h"
#include "athanor/runner/step/step_meters.h"
#include "athanor/runner/step/torch_steps.h"
#include "athanor/runner/step/trained_model.h"

namespace athanor {

class SplitEvaluator {
 public:
  using MakeMetrics = std::function<absl::StatusOr<std::unique_ptr<MetricSet>>()>;
  // All outlive this object. `make_metrics` may give null.
  SplitEvaluator(RunContext* context, TrainedModel* trained, RunData* data, TorchSteps* steps,
                 MakeMetrics make_metrics);

  // "loss" and the metrics of the split. With the average of the weights where there is one. `max_batches`: -1 for all.
  // Collective. NOT_FOUND lists the splits.
  absl::StatusOr<std::map<std::string, double>> Run(const std::string& split, int64_t max_batches);

 private:
  absl::Status ForwardAll(StatefulDataLoader* loader, StepMeters* meters, int64_t max_batches);

  RunContext* const context_;
  TrainedModel* const trained_;
  RunData* const data_;
  TorchSteps* const steps_;
  const MakeMetrics make_metrics_;
};

}  // namespace athanor
