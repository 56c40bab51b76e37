// What all containers of metrics have in common: batches go in, named values come out.
//
//   ASSIGN_OR_RETURN(std::unique_ptr<MetricSet> metrics, BuildMetrics({.type = "binary", .mode =
//   MetricMode::kGlobal}));
//   metrics->Update(scores, labels);                  // tensors, or ragged batches
//   ASSIGN_OR_RETURN(MetricValues epoch, metrics->Average());
//
// Value(): of the last batch here. Batch(): of the last batch on all ranks. Average(): of everything on all ranks. The
// last two are collectives when there is a MeterSync. Update never waits for the device when scores and labels are
// tensors and all metrics are descriptors (MetricFunc).
//
// Errors of read-outs: FAILED_PRECONDITION for scores or labels that the task does not know, UNAVAILABLE for a rank
// that is gone. Update throws c10::ValueError and c10::TypeError for sizes and dtypes. Not thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "athanor/metrics/metric_values.h"
#include "athanor/metrics/preprocess.h"
#include "athanor/tensor/nested_tensor.h"

namespace athanor {

class MetricSet {
 public:
  virtual ~MetricSet() = default;
  virtual void Update(const torch::Tensor& input, const torch::Tensor& target) = 0;
  // Ragged batches: their packed values. A dense partner is packed by the lengths of the nested one.
  void Update(const NestedValue& input, const NestedValue& target);

  virtual absl::StatusOr<MetricValues> Value() = 0;
  virtual absl::StatusOr<MetricValues> Batch() = 0;
  virtual absl::StatusOr<MetricValues> Average() = 0;
  // Samples of the last batch and of all batches. With `ranks` over all of them (a collective), else here.
  virtual absl::StatusOr<int64_t> Samples(bool of_batch, bool ranks) = 0;
  // "acc: 0.7500 (0.8000)\tf1: …": value (mean here). Never a collective.
  virtual absl::StatusOr<std::string> Text(int decimals = 4) = 0;
  virtual void Reset() = 0;
};

// Packed values of both, aligned. Throws c10::ValueError when batch sizes differ.
LabeledBatch PackedPair(const NestedValue& input, const NestedValue& target);

}  // namespace athanor
