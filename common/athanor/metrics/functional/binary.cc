#include "athanor/metrics/functional/binary.h"

#include "athanor/metrics/functional/descriptors.h"

namespace athanor::metrics {

MetricFunc BinaryAccuracy(const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kBinary, 1, Ratio::kAccuracy, "acc", options);
}
MetricFunc BinaryPrecision(const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kBinary, 1, Ratio::kPrecision, "precision", options);
}
MetricFunc BinaryRecall(const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kBinary, 1, Ratio::kRecall, "recall", options);
}
MetricFunc BinarySpecificity(const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kBinary, 1, Ratio::kSpecificity, "specificity", options);
}
MetricFunc BinaryBalancedAccuracy(const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kBinary, 1, Ratio::kBalancedAccuracy, "balanced_accuracy", options);
}
MetricFunc BinaryJaccardIndex(const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kBinary, 1, Ratio::kJaccard, "jaccard", options);
}
MetricFunc BinaryIou(const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kBinary, 1, Ratio::kJaccard, "iou", options);
}
MetricFunc BinaryHammingLoss(const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kBinary, 1, Ratio::kHammingLoss, "hamming_loss", options);
}
MetricFunc BinaryFBeta(const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kBinary, 1, Ratio::kFBeta, "fbeta", options);
}
MetricFunc BinaryF1(MetricOptions options) {
  options.beta = 1;
  return internal::RatioMetric(MetricTask::kBinary, 1, Ratio::kFBeta, "f1", options);
}
MetricFunc BinaryAuroc(const MetricOptions& options) {
  return internal::CurveMetric(MetricTask::kBinary, 1, Curve::kAuroc, options);
}
MetricFunc BinaryAuprc(const MetricOptions& options) {
  return internal::CurveMetric(MetricTask::kBinary, 1, Curve::kAuprc, options);
}
MetricFunc BinaryMcc(const MetricOptions& options) {
  return internal::MccMetric(MetricTask::kBinary, 1, options);
}
MetricFunc BinaryConfusionMatrix(const MetricOptions& options) {
  return internal::ConfusionMetric(MetricTask::kBinary, 1, options);
}
MetricFunc BinaryCohenKappa(const MetricOptions& options) {
  return internal::KappaMetric(MetricTask::kBinary, 1, options);
}
MetricFunc BinaryCalibrationError(const MetricOptions& options) {
  return internal::CalibrationMetric(MetricTask::kBinary, 1, options);
}

}  // namespace athanor::metrics
