#include "athanor/metrics/functional/multilabel.h"

#include "athanor/metrics/functional/descriptors.h"

namespace athanor::metrics {

MetricFunc MultilabelAccuracy(int64_t num_labels, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMultilabel, num_labels, Ratio::kAccuracy, "acc", options);
}
MetricFunc MultilabelPrecision(int64_t num_labels, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMultilabel, num_labels, Ratio::kPrecision, "precision", options);
}
MetricFunc MultilabelRecall(int64_t num_labels, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMultilabel, num_labels, Ratio::kRecall, "recall", options);
}
MetricFunc MultilabelSpecificity(int64_t num_labels, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMultilabel, num_labels, Ratio::kSpecificity, "specificity", options);
}
MetricFunc MultilabelBalancedAccuracy(int64_t num_labels, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMultilabel, num_labels, Ratio::kBalancedAccuracy, "balanced_accuracy",
                               options);
}
MetricFunc MultilabelJaccardIndex(int64_t num_labels, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMultilabel, num_labels, Ratio::kJaccard, "jaccard", options);
}
MetricFunc MultilabelIou(int64_t num_labels, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMultilabel, num_labels, Ratio::kJaccard, "iou", options);
}
MetricFunc MultilabelHammingLoss(int64_t num_labels, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMultilabel, num_labels, Ratio::kHammingLoss, "hamming_loss", options);
}
MetricFunc MultilabelFBeta(int64_t num_labels, const MetricOptions& options) {
  return internal::RatioMetric(MetricTask::kMultilabel, num_labels, Ratio::kFBeta, "fbeta", options);
}
MetricFunc MultilabelF1(int64_t num_labels, MetricOptions options) {
  options.beta = 1;
  return internal::RatioMetric(MetricTask::kMultilabel, num_labels, Ratio::kFBeta, "f1", options);
}
MetricFunc MultilabelAuroc(int64_t num_labels, const MetricOptions& options) {
  return internal::CurveMetric(MetricTask::kMultilabel, num_labels, Curve::kAuroc, options);
}
MetricFunc MultilabelAuprc(int64_t num_labels, const MetricOptions& options) {
  return internal::CurveMetric(MetricTask::kMultilabel, num_labels, Curve::kAuprc, options);
}
MetricFunc MultilabelMcc(int64_t num_labels, const MetricOptions& options) {
  return internal::MccMetric(MetricTask::kMultilabel, num_labels, options);
}
MetricFunc MultilabelConfusionMatrix(int64_t num_labels, const MetricOptions& options) {
  return internal::ConfusionMetric(MetricTask::kMultilabel, num_labels, options);
}

}  // namespace athanor::metrics
