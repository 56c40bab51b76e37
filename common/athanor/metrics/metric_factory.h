// The usual metrics of a task, by name.
//
//   ASSIGN_OR_RETURN(auto metrics, BuildMetrics({.type = "multiclass", .num_classes = 10}));
//
// binary, multiclass, multilabel: auroc, auprc, acc, f1, mcc. regression: pearson, spearman, r2, mse, rmse.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "athanor/metrics/functional/options.h"
#include "athanor/metrics/global_metrics.h"
#include "athanor/metrics/stream_metrics.h"

namespace athanor {

enum class MetricMode { kGlobal, kStream };  // exact over all samples; means of batches

struct MetricsOptions {
  std::string type;  // binary, multiclass, multilabel or regression, in any case
  MetricMode mode = MetricMode::kGlobal;
  std::optional<int64_t> num_classes, num_labels, num_outputs;  // num_labels stands in for the other two
  metrics::MetricOptions options;                               // average, threshold, ignore_index …
  bool ignore_nan = true;                                       // regression
  Scores scores = Scores::kProbabilities;
  std::shared_ptr<MeterSync> sync;
  std::vector<MetricFunc> metrics;  // in place of the usual ones
};

// INVALID_ARGUMENT for an unknown type, a missing, not positive or contradicting size, and metrics that contradict
// each other or the task.
absl::StatusOr<std::unique_ptr<MetricSet>> BuildMetrics(const MetricsOptions& options);

// The descriptors that BuildMetrics takes. `width`: classes, labels or outputs.
std::vector<MetricFunc> DefaultMetrics(MetricTask task, int64_t width, const metrics::MetricOptions& options = {});

}  // namespace athanor
