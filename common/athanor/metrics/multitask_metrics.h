// Metrics of several tasks under one roof, and their aggregate.
//
//   ASSIGN_OR_RETURN(MultiTaskMetrics metrics, MultiTaskMetrics::Create({.aggregate = Aggregate::kMacro}));
//   RETURN_IF_ERROR(metrics.Add("digits", *BuildMetrics({.type = "multiclass", .num_classes = 10})));
//   RETURN_IF_ERROR(metrics.Add("parity", *BuildMetrics({.type = "binary"})));
//   RETURN_IF_ERROR(metrics.UpdateTasks({{"digits", {scores, labels}}, {"parity", {odd_scores, odd}}}));
//   ASSIGN_OR_RETURN(TaskValues epoch, metrics.AverageByTask());   // {"digits": {…}, "parity": {…}, "aggregate": {…}}
//   ASSIGN_OR_RETURN(MetricValues flat, metrics.Average());        // "digits/acc", …, "aggregate/acc"
//
// A MetricSet, so that a runner can have it (TorchRunnerOptions::metrics, fed with StepOutput::tasks).
//
// Aggregates, for each metric name over the tasks that have it with a value that is not NaN:
//   kMacro     plain mean            kMicro  weighted by samples (of the batch or of all batches; over the ranks):
//                                            those that the value itself is a mean over
//   kWeighted  by weights of one's own, one for each task; a weight of 0 leaves the task out
// Vectors are averaged element by element over what is not NaN (float64); a number and a vector, or two shapes, under
// one name are an error.
// Tasks all of whose values are NaN (never updated) are left out of the results.
//
// Ranks: a read-out is one exchange for all tasks together, and a second one where some rank has more than some
// kilobytes to give. Tasks over another group than the first one, and containers of one's own (MetricSet::joint()), are
// read out after it, one by one. All ranks have the same tasks in the same order, with the same options: else
// INVALID_ARGUMENT, on all of them. Not thread-safe.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/metrics/metric_set.h"
#include "athanor/metrics/rank_exchange.h"

namespace athanor {

enum class Aggregate { kNone, kMacro, kMicro, kWeighted };
// "macro", "micro" or "weighted"; INVALID_ARGUMENT names what was found.
absl::StatusOr<Aggregate> ParseAggregate(const std::string& name);

// Task -> values; the last one is "aggregate" when one was asked for (empty while no task has values).
using TaskValues = std::vector<std::pair<std::string, MetricValues>>;

struct MultiTaskOptions {
  Aggregate aggregate = Aggregate::kNone;
  std::map<std::string, double> weights;  // with kWeighted only
  // Absent: that of the first task that has one. Given, a rank without tasks is told so by the others, too.
  std::shared_ptr<MeterSync> sync;
};

class MultiTaskMetrics : public MetricSet {
 public:
  // INVALID_ARGUMENT for weights without kWeighted, kWeighted without weights, and weights that are negative or not
  // finite.
  static absl::StatusOr<MultiTaskMetrics> Create(MultiTaskOptions options = {});

  // INVALID_ARGUMENT for a name that is taken or is "aggregate".
  absl::Status Add(const std::string& task, std::unique_ptr<MetricSet> metrics);
  MetricSet* Find(const std::string& task);
  std::vector<std::string> tasks() const;

  // All of the tasks that are named, or none when one of them is unknown (NOT_FOUND, names those that there are); the
  // others stay as they are. Throws what MetricSet::Update throws, with the tasks before it updated.
  absl::Status UpdateTasks(const TaskBatches& batches) override;
  absl::Status Update(const std::string& task, const NestedValue& input, const NestedValue& target);
  using MetricSet::Update;
  // For a single task. Throws c10::ValueError when there are others: they cannot be told apart.
  void Update(const torch::Tensor& input, const torch::Tensor& target) override;

  // INVALID_ARGUMENT when weights and tasks do not match, or shapes under one name differ.
  absl::StatusOr<TaskValues> ValueByTask() { return Read(std::nullopt); }
  absl::StatusOr<TaskValues> BatchByTask() { return Read(ReadOut::kBatch); }
  absl::StatusOr<TaskValues> AverageByTask() { return Read(ReadOut::kAll); }
  // The same as "<task>/<metric>".
  absl::StatusOr<MetricValues> Value() override { return Flat(ValueByTask()); }
  absl::StatusOr<MetricValues> Batch() override { return Flat(BatchByTask()); }
  absl::StatusOr<MetricValues> Average() override { return Flat(AverageByTask()); }
  // Of all tasks together. With `ranks` a collective of every task.
  absl::StatusOr<int64_t> Samples(bool of_batch, bool ranks) override;
  absl::StatusOr<std::string> Text(int decimals = 4) override;  // one line a task
  void Reset() override;

  // As in MetricSet, for all tasks at once: "<task>/<key of its metrics>", with '/' and '%' of a task's name as %2F and
  // %25. All tasks load, or none: INVALID_ARGUMENT names task and key, also for a task that only one side has.
  absl::StatusOr<TensorMap> StateTensors() override;
  absl::StatusOr<std::function<void()>> PlanLoad(const TensorMap& state) override;

 private:
  using Of = std::optional<ReadOut>;  // nothing: the last batch here
  struct Entry {
    std::string task, name;
    torch::Tensor value, weight;  // float64; the weight 0-dim or of the value's shape
  };
  explicit MultiTaskMetrics(MultiTaskOptions options) : options_(std::move(options)) {}
  static absl::StatusOr<MetricValues> Flat(absl::StatusOr<TaskValues> values);
  absl::StatusOr<TaskValues> Read(Of of);
  MeterSync* SharedSync();
  absl::StatusOr<std::map<std::string, JointValues>> ReadTogether(ReadOut of);
  absl::StatusOr<JointValues> ReadAlone(MetricSet& metrics, Of of) const;
  absl::Status CheckWeights() const;
  torch::Tensor WeightOf(const std::string& task, const JointValues& found, size_t i) const;
  static absl::StatusOr<MetricValues> AggregateOf(const std::vector<Entry>& entries);

  MultiTaskOptions options_;
  std::vector<std::pair<std::string, std::unique_ptr<MetricSet>>> tasks_;
};

using MultiTaskMeters = MultiTaskMetrics;  // the reference has two names

}  // namespace athanor
