#include "athanor/metrics/functional/multiclass.h"

#include "athanor/metrics/functional/descriptors.h"

namespace athanor::metrics {

MetricFunc MulticlassAccuracy(int64_t num_classes, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMulticlass, num_classes, Ratio::kAccuracy, "acc", options);
}
MetricFunc MulticlassPrecision(int64_t num_classes, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMulticlass, num_classes, Ratio::kPrecision, "precision", options);
}
MetricFunc MulticlassRecall(int64_t num_classes, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMulticlass, num_classes, Ratio::kRecall, "recall", options);
}
MetricFunc MulticlassSpecificity(int64_t num_classes, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMulticlass, num_classes, Ratio::kSpecificity, "specificity", options);
}
MetricFunc MulticlassBalancedAccuracy(int64_t num_classes, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMulticlass, num_classes, Ratio::kBalancedAccuracy, "balanced_accuracy",
                               options);
}
MetricFunc MulticlassJaccardIndex(int64_t num_classes, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMulticlass, num_classes, Ratio::kJaccard, "jaccard", options);
}
MetricFunc MulticlassIou(int64_t num_classes, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMulticlass, num_classes, Ratio::kJaccard, "iou", options);
}
MetricFunc MulticlassHammingLoss(int64_t num_classes, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMulticlass, num_classes, Ratio::kHammingLoss, "hamming_loss", options);
}
MetricFunc MulticlassFBeta(int64_t num_classes, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMulticlass, num_classes, Ratio::kFBeta, "fbeta", options);
}
MetricFunc MulticlassF1(int64_t num_classes, MetricOptions options) {
  options.beta = 1;
  return internal::RatioMetric(MetricTask::kMulticlass, num_classes, Ratio::kFBeta, "f1", options);
}
MetricFunc MulticlassAuroc(int64_t num_classes, const MetricOptions& options) {
  return internal::CurveMetric(MetricTask::kMulticlass, num_classes, Curve::kAuroc, options);
}
MetricFunc MulticlassAuprc(int64_t num_classes, const MetricOptions& options) {
  return internal::CurveMetric(MetricTask::kMulticlass, num_classes, Curve::kAuprc, options);
}
MetricFunc MulticlassMcc(int64_t num_classes, const MetricOptions& options) {
  return internal::MccMetric(MetricTask::kMulticlass, num_classes, options);
}
MetricFunc MulticlassConfusionMatrix(int64_t num_classes, const MetricOptions& options) {
  return internal::ConfusionMetric(MetricTask::kMulticlass, num_classes, options);
}
MetricFunc MulticlassCohenKappa(int64_t num_classes, const MetricOptions& options) {
  return internal::KappaMetric(MetricTask::kMulticlass, num_classes, options);
}
MetricFunc MulticlassCalibrationError(int64_t num_classes, const MetricOptions& options) {
  return internal::CalibrationMetric(MetricTask::kMulticlass, num_classes, options);
}

}  // namespace athanor::metrics
