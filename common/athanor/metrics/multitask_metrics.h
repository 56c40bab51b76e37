// Metrics of several tasks under one roof, and their aggregate.
//
//   MultiTaskMetrics metrics({.aggregate = Aggregate::kMacro});
//   metrics.Add("digits", *BuildMetrics({.type = "multiclass", .num_classes = 10}));
//   metrics.Add("parity", *BuildMetrics({.type = "binary"}));
//   RETURN_IF_ERROR(metrics.Update("digits", scores, labels));
//   ASSIGN_OR_RETURN(TaskValues epoch, metrics.Average());   // {"digits": {...}, "parity": {...}, "aggregate": {...}}
//
// Aggregates, for each metric name over the tasks that have it with a value that is not NaN:
//   kMacro     plain mean            kMicro  weighted by samples (of the batch or of all batches; over the ranks)
//   kWeighted  by weights of one's own, one for each task; a weight of 0 leaves the task out
// Vectors are averaged element by element (float64); a number and a vector, or two shapes, under one name are an error.
// Tasks all of whose values are NaN (never updated) are left out of the results.
//
// Read-outs over ranks are collectives, task after task, in the order in which tasks were added. Not thread-safe.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/metrics/metric_set.h"

namespace athanor {

enum class Aggregate { kNone, kMacro, kMicro, kWeighted };
// "macro", "micro" or "weighted"; INVALID_ARGUMENT names what was found.
absl::StatusOr<Aggregate> ParseAggregate(const std::string& name);

// Task -> values; the last one is "aggregate" when one was asked for (empty while no task has values).
using TaskValues = std::vector<std::pair<std::string, MetricValues>>;

struct MultiTaskOptions {
  Aggregate aggregate = Aggregate::kNone;
  std::map<std::string, double> weights;  // with kWeighted only
};

class MultiTaskMetrics {
 public:
  // INVALID_ARGUMENT for weights without kWeighted, kWeighted without weights, and weights that are negative or not
  // finite.
  static absl::StatusOr<MultiTaskMetrics> Create(MultiTaskOptions options = {});

  // INVALID_ARGUMENT for a name that is taken or is "aggregate".
  absl::Status Add(const std::string& task, std::unique_ptr<MetricSet> metrics);
  // NOT_FOUND for an unknown task, names those that there are. Throws what MetricSet::Update throws.
  absl::Status Update(const std::string& task, const NestedValue& input, const NestedValue& target);
  MetricSet* Find(const std::string& task);
  std::vector<std::string> tasks() const;

  // INVALID_ARGUMENT when weights and tasks do not match, or shapes under one name differ.
  absl::StatusOr<TaskValues> Value() { return Read(Part::kValue); }
  absl::StatusOr<TaskValues> Batch() { return Read(Part::kBatch); }
  absl::StatusOr<TaskValues> Average() { return Read(Part::kAverage); }
  absl::StatusOr<std::string> Text(int decimals = 4);  // one line a task
  void Reset();

  // As in MetricSet, for all tasks at once: "<task>/<key of its metrics>", with '/' and '%' of a task's name as %2F and
  // %25. All tasks load, or none: INVALID_ARGUMENT names task and key, also for a task that only one side has.
  absl::StatusOr<TensorMap> StateTensors();
  absl::Status LoadState(const TensorMap& state);

 private:
  enum class Part { kValue, kBatch, kAverage };
  struct Entry {
    std::string task;
    torch::Tensor value;
    double weight = 1;
  };
  explicit MultiTaskMetrics(MultiTaskOptions options) : options_(std::move(options)) {}
  absl::StatusOr<TaskValues> Read(Part part);
  absl::Status CheckWeights() const;
  absl::StatusOr<double> WeightOf(const std::string& task, MetricSet& metrics, Part part) const;
  absl::StatusOr<MetricValues> AggregateOf(const TaskValues& values,
                                           const std::map<std::string, double>& weights) const;

  MultiTaskOptions options_;
  std::vector<std::pair<std::string, std::unique_ptr<MetricSet>>> tasks_;
};

using MultiTaskMeters = MultiTaskMetrics;  // the reference has two names

}  // namespace athanor
