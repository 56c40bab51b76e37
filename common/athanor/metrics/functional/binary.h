// Descriptors of binary metrics: one score and one label (0 or 1) per sample, any shape.
//
//   auto metrics = GlobalMetrics::Create({metrics::BinaryAuroc(), metrics::BinaryF1()}, {.scores = Scores::kLogits});
//
// The default name follows each descriptor. Values: float32, 0-dim; a vector with Average::kNone. Definitions:
// confusion.h and curves.h. Throw c10::ValueError for options out of range. State has a fixed size except for the
// curves with thresholds = 0.
#pragma once

#include "athanor/metrics/functional/options.h"
#include "athanor/metrics/metric_func.h"

namespace athanor::metrics {

MetricFunc BinaryAccuracy(const MetricOptions& options = {});          // acc
MetricFunc BinaryPrecision(const MetricOptions& options = {});         // precision
MetricFunc BinaryRecall(const MetricOptions& options = {});            // recall
MetricFunc BinarySpecificity(const MetricOptions& options = {});       // specificity
MetricFunc BinaryBalancedAccuracy(const MetricOptions& options = {});  // balanced_accuracy
MetricFunc BinaryJaccardIndex(const MetricOptions& options = {});      // jaccard
MetricFunc BinaryIou(const MetricOptions& options = {});               // iou
MetricFunc BinaryHammingLoss(const MetricOptions& options = {});       // hamming_loss
MetricFunc BinaryFBeta(const MetricOptions& options = {});             // fbeta
MetricFunc BinaryF1(MetricOptions options = {});                       // f1; F-beta with beta 1
MetricFunc BinaryAuroc(const MetricOptions& options = {});             // auroc
MetricFunc BinaryAuprc(const MetricOptions& options = {});             // auprc
MetricFunc BinaryMcc(const MetricOptions& options = {});               // mcc; Matthews correlation
MetricFunc BinaryConfusionMatrix(const MetricOptions& options = {});   // confmat
MetricFunc BinaryCohenKappa(const MetricOptions& options = {});        // kappa
MetricFunc BinaryCalibrationError(const MetricOptions& options = {});  // ece

}  // namespace athanor::metrics
