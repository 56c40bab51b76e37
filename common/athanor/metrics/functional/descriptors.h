// How the descriptors of all tasks are made. Internal: use binary.h, multiclass.h, multilabel.h.
#pragma once

#include "athanor/metrics/functional/options.h"
#include "athanor/metrics/metric_func.h"

namespace athanor::metrics::internal {

// Names: acc, precision, recall, specificity, balanced_accuracy, jaccard, hamming_loss, fbeta (f1 when `name` says so),
// auroc, auprc, mcc, kappa, ece, confmat.
MetricFunc RatioMetric(MetricTask task, int64_t width, Ratio ratio, const char* name, const MetricOptions& options);
MetricFunc CurveMetric(MetricTask task, int64_t width, Curve curve, const MetricOptions& options);
MetricFunc MccMetric(MetricTask task, int64_t width, const MetricOptions& options);
MetricFunc KappaMetric(MetricTask task, int64_t width, const MetricOptions& options);
MetricFunc CalibrationMetric(MetricTask task, int64_t width, const MetricOptions& options);
MetricFunc ConfusionMetric(MetricTask task, int64_t width, const MetricOptions& options);

}  // namespace athanor::metrics::internal
