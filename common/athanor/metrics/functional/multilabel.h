// Descriptors of multilabel metrics: [N, L] scores and [N, L] labels 0 or 1; single entries may be left out by
// ignore_index.
//
//   auto metrics = GlobalMetrics::Create({metrics::MultilabelAuroc(5), metrics::MultilabelF1(5)});
//
// The default name follows each descriptor. Values: float32, 0-dim; a vector with Average::kNone. Definitions:
// confusion.h and curves.h. Throw c10::ValueError for options out of range. State has a fixed size except for the
// curves with thresholds = 0.
#pragma once

#include "athanor/metrics/functional/options.h"
#include "athanor/metrics/metric_func.h"

namespace athanor::metrics {

MetricFunc MultilabelAccuracy(int64_t num_labels, const MetricOptions& options = {});          // acc
MetricFunc MultilabelPrecision(int64_t num_labels, const MetricOptions& options = {});         // precision
MetricFunc MultilabelRecall(int64_t num_labels, const MetricOptions& options = {});            // recall
MetricFunc MultilabelSpecificity(int64_t num_labels, const MetricOptions& options = {});       // specificity
MetricFunc MultilabelBalancedAccuracy(int64_t num_labels, const MetricOptions& options = {});  // balanced_accuracy
MetricFunc MultilabelJaccardIndex(int64_t num_labels, const MetricOptions& options = {});      // jaccard
MetricFunc MultilabelIou(int64_t num_labels, const MetricOptions& options = {});               // iou
MetricFunc MultilabelHammingLoss(int64_t num_labels, const MetricOptions& options = {});       // hamming_loss
MetricFunc MultilabelFBeta(int64_t num_labels, const MetricOptions& options = {});             // fbeta
MetricFunc MultilabelF1(int64_t num_labels, MetricOptions options = {});                       // f1; F-beta with beta 1
MetricFunc MultilabelAuroc(int64_t num_labels, const MetricOptions& options = {});             // auroc
MetricFunc MultilabelAuprc(int64_t num_labels, const MetricOptions& options = {});             // auprc
MetricFunc MultilabelMcc(int64_t num_labels, const MetricOptions& options = {});  // mcc; Matthews correlation
MetricFunc MultilabelConfusionMatrix(int64_t num_labels, const MetricOptions& options = {});  // confmat

}  // namespace athanor::metrics
