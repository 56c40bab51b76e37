// Descriptors of multiclass metrics: [N, C] scores (or [.., C]) and one label 0 .. C-1 per sample.
//
//   auto metrics = GlobalMetrics::Create({metrics::MulticlassAccuracy(10), metrics::MulticlassF1(10)});
//
// The default name follows each descriptor. Values: float32, 0-dim; a vector with Average::kNone. Definitions:
// confusion.h and curves.h. Throw c10::ValueError for options out of range. State has a fixed size except for the
// curves with thresholds = 0.
#pragma once

#include "athanor/metrics/functional/options.h"
#include "athanor/metrics/metric_func.h"

namespace athanor::metrics {

MetricFunc MulticlassAccuracy(int64_t num_classes, const MetricOptions& options = {});          // acc
MetricFunc MulticlassPrecision(int64_t num_classes, const MetricOptions& options = {});         // precision
MetricFunc MulticlassRecall(int64_t num_classes, const MetricOptions& options = {});            // recall
MetricFunc MulticlassSpecificity(int64_t num_classes, const MetricOptions& options = {});       // specificity
MetricFunc MulticlassBalancedAccuracy(int64_t num_classes, const MetricOptions& options = {});  // balanced_accuracy
MetricFunc MulticlassJaccardIndex(int64_t num_classes, const MetricOptions& options = {});      // jaccard
MetricFunc MulticlassIou(int64_t num_classes, const MetricOptions& options = {});               // iou
MetricFunc MulticlassHammingLoss(int64_t num_classes, const MetricOptions& options = {});       // hamming_loss
MetricFunc MulticlassFBeta(int64_t num_classes, const MetricOptions& options = {});             // fbeta
MetricFunc MulticlassF1(int64_t num_classes, MetricOptions options = {});            // f1; F-beta with beta 1
MetricFunc MulticlassAuroc(int64_t num_classes, const MetricOptions& options = {});  // auroc
MetricFunc MulticlassAuprc(int64_t num_classes, const MetricOptions& options = {});  // auprc
MetricFunc MulticlassMcc(int64_t num_classes, const MetricOptions& options = {});    // mcc; Matthews correlation
MetricFunc MulticlassConfusionMatrix(int64_t num_classes, const MetricOptions& options = {});   // confmat
MetricFunc MulticlassCohenKappa(int64_t num_classes, const MetricOptions& options = {});        // kappa
MetricFunc MulticlassCalibrationError(int64_t num_classes, const MetricOptions& options = {});  // ece

}  // namespace athanor::metrics
