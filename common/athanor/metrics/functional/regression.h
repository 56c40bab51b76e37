// Descriptors of regression metrics: predictions and targets of one shape, [N] or [N, outputs]; NaN targets are left
// out (the whole sample). Definitions and undefined cases: regression_moments.h.
//
//   auto metrics = GlobalMetrics::Create({metrics::Rmse(), metrics::Pearson()});
//
// State has a fixed size except for Spearman's, which needs all pairs.
#pragma once

#include "athanor/metrics/metric_func.h"

namespace athanor::metrics {

MetricFunc Pearson(int64_t num_outputs = 1);   // pearson
MetricFunc Spearman(int64_t num_outputs = 1);  // spearman
MetricFunc R2Score(int64_t num_outputs = 1);   // r2
MetricFunc Mse(int64_t num_outputs = 1);       // mse
MetricFunc Rmse(int64_t num_outputs = 1);      // rmse
MetricFunc Mae(int64_t num_outputs = 1);       // mae

}  // namespace athanor::metrics
