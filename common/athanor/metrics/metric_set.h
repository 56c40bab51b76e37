// What all containers of metrics have in common: batches go in, named values come out.
//
//   ASSIGN_OR_RETURN(std::unique_ptr<MetricSet> metrics,
//                    BuildMetrics({.type = "binary", .mode = MetricMode::kGlobal}));
//   metrics->Update(scores, labels);                  // tensors, or ragged batches
//   RETURN_IF_ERROR(metrics->UpdateTasks({{"digits", {scores, labels}}}));   // of a container of tasks
//   ASSIGN_OR_RETURN(MetricValues epoch, metrics->Average());
//
// Value(): of the last batch here. Batch(): of the last batch on all ranks. Average(): of everything on all ranks. The
// last two are collectives when there is a MeterSync. Update never waits for the device when scores and labels are
// tensors and all metrics are descriptors (MetricFunc).
//
// Errors of read-outs: FAILED_PRECONDITION for scores or labels that the task does not know, INVALID_ARGUMENT for ranks
// with other metrics, UNAVAILABLE for a rank that is gone. Of a collective, the error of one rank is that of all; none
// waits for the others. Update throws c10::ValueError and c10::TypeError for sizes and dtypes. Not thread-safe.
//
// Saving: what this rank has seen, for one that goes on later as if it had not stopped. No collectives.
//
//   ASSIGN_OR_RETURN(TensorMap state, metrics->StateTensors());
//   RETURN_IF_ERROR(fresh->LoadState(state));         // made with the same metrics and options, on the same rank
//
// Average() and Samples(false, …) of the two are then equal bit for bit, at once and after further batches (on one
// kind of device). The last batch is not saved: until the next Update, Value() and Batch() answer as before the first
// one (NaN, no samples).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/metrics/metric_values.h"
#include "athanor/metrics/preprocess.h"
#include "athanor/nested/tensor.h"

namespace athanor {

class JointReadOut;

struct ScoredBatch {
  NestedValue input, target;
};
using TaskBatches = std::map<std::string, ScoredBatch>;  // by task

class MetricSet {
 public:
  virtual ~MetricSet() = default;
  virtual void Update(const torch::Tensor& input, const torch::Tensor& target) = 0;
  // Ragged batches: their packed values, by PackedPair().
  void Update(const NestedValue& input, const NestedValue& target);
  // A batch for each of some tasks: the others stay as they are. UNIMPLEMENTED where there are no tasks
  // (multitask_metrics.h), NOT_FOUND for one that is unknown.
  virtual absl::Status UpdateTasks(const TaskBatches& batches);

  virtual absl::StatusOr<MetricValues> Value() = 0;
  virtual absl::StatusOr<MetricValues> Batch() = 0;
  virtual absl::StatusOr<MetricValues> Average() = 0;
  // Samples of the last batch and of all batches. With `ranks` over all of them (a collective), else here.
  virtual absl::StatusOr<int64_t> Samples(bool of_batch, bool ranks) = 0;
  // What each value is a mean over, in the order of the values: 0-dim, or one for each entry of a vector, on the CPU.
  // Empty: Samples(), all of them. As Samples() in the rest.
  virtual absl::StatusOr<std::vector<torch::Tensor>> Weights(bool of_batch, bool ranks);
  // "acc: 0.7500 (0.8000)\tf1: …": value (mean here). Never a collective.
  virtual absl::StatusOr<std::string> Text(int decimals = 4) = 0;
  virtual void Reset() = 0;

  // Defined, dense, contiguous, on the devices of the batches; the same names however much was seen, also nothing. They
  // keep their values when more batches come; do not write into them. Does not wait for the device. UNIMPLEMENTED where
  // a container cannot.
  virtual absl::StatusOr<TensorMap> StateTensors();
  // In place of everything seen so far. Copies; state lies on the devices of `state` until the next batch moves it to
  // its own. INVALID_ARGUMENT names the key that is missing or unknown, or whose shape or dtype is another; then
  // nothing has changed. UNIMPLEMENTED where a container cannot.
  absl::Status LoadState(const TensorMap& state);
  // LoadState in two steps, for several containers that load all or none: checks and copies, and returns the call that
  // puts the state in place. That cannot fail; make it before anything else happens to the container, or never.
  virtual absl::StatusOr<std::function<void()>> PlanLoad(const TensorMap& state);

  // Internal: for containers of containers, which read all of them out in one exchange. nullptr: it cannot.
  virtual JointReadOut* joint() { return nullptr; }
};

// Packed values of both, aligned: row by row they are of the same element and position.
//   dense, dense     as they are
//   nested, nested   elements with the same lengths; one of them may have one more dim, such as the classes
//   nested, dense    the dense one is packed by the lengths of the nested one: B x L x C and B x L, or both B x L x C;
//                    what lies beyond an element's length is padding
// Throws c10::ValueError when batch sizes or lengths differ, when a dense one is too narrow for the lengths, and when
// the last dim, which only one of them has, is not of one size.
LabeledBatch PackedPair(const NestedValue& input, const NestedValue& target);

}  // namespace athanor
