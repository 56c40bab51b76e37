#include "athanor/metrics/functional/functional.h"

#include "athanor/metrics/functional/descriptors.h"
#include "athanor/metrics/metric_set.h"
#include "athanor/metrics/wrong_input.h"

namespace athanor::metrics {
namespace {

struct TaskWidth {
  MetricTask task;
  int64_t width;
};

TaskWidth TaskOf(const FunctionOptions& options) {
  TORCH_CHECK_VALUE(!options.num_classes || !options.num_labels,
                    "found num_classes and num_labels; allowed: one of them, or none for a binary task");
  MetricTask task = MetricTask::kBinary;
  if (options.num_classes) task = MetricTask::kMulticlass;
  if (options.num_labels) task = MetricTask::kMultilabel;
  if (options.task) task = *options.task;
  if (task == MetricTask::kMulticlass) {
    TORCH_CHECK_VALUE(options.num_classes, "num_classes is needed for a multiclass task");
    return {task, *options.num_classes};
  }
  if (task == MetricTask::kMultilabel) {
    TORCH_CHECK_VALUE(options.num_labels, "num_labels is needed for a multilabel task");
    return {task, *options.num_labels};
  }
  TORCH_CHECK_VALUE(task == MetricTask::kBinary, "task: found ", ToString(task),
                    "; allowed: binary, multiclass, multilabel");
  return {task, 1};
}

torch::Tensor Evaluate(const MetricFunc& metric, const NestedValue& input, const NestedValue& target, Scores scores) {
  const LabeledBatch pair = PackedPair(input, target);
  const MaskedBatch batch = metric.needs.MakePreprocess(scores).Apply(pair.input, pair.target);
  batch.ThrowIfWrong();
  return NanWhere(batch.nan_scores, metric.compute(MetricState::Count(metric.needs, batch)));
}

torch::Tensor EvaluateRatio(Ratio ratio, const NestedValue& input, const NestedValue& target,
                            const FunctionOptions& options) {
  const auto [task, width] = TaskOf(options);
  return Evaluate(internal::RatioMetric(task, width, ratio, "", options), input, target, options.scores);
}

torch::Tensor EvaluateCurve(Curve curve, const NestedValue& input, const NestedValue& target,
                            const FunctionOptions& options) {
  const auto [task, width] = TaskOf(options);
  return Evaluate(internal::CurveMetric(task, width, curve, options), input, target, options.scores);
}

using Maker = MetricFunc (*)(MetricTask, int64_t, const MetricOptions&);

torch::Tensor EvaluateMade(Maker maker, const NestedValue& input, const NestedValue& target,
                           const FunctionOptions& options) {
  const auto [task, width] = TaskOf(options);
  return Evaluate(maker(task, width, options), input, target, options.scores);
}

}  // namespace

torch::Tensor Accuracy(const NestedValue& input, const NestedValue& target, const FunctionOptions& options) {
  return EvaluateRatio(Ratio::kAccuracy, input, target, options);
}
torch::Tensor Precision(const NestedValue& input, const NestedValue& target, const FunctionOptions& options) {
  return EvaluateRatio(Ratio::kPrecision, input, target, options);
}
torch::Tensor Recall(const NestedValue& input, const NestedValue& target, const FunctionOptions& options) {
  return EvaluateRatio(Ratio::kRecall, input, target, options);
}
torch::Tensor Specificity(const NestedValue& input, const NestedValue& target, const FunctionOptions& options) {
  return EvaluateRatio(Ratio::kSpecificity, input, target, options);
}
torch::Tensor BalancedAccuracy(const NestedValue& input, const NestedValue& target, const FunctionOptions& options) {
  return EvaluateRatio(Ratio::kBalancedAccuracy, input, target, options);
}
torch::Tensor JaccardIndex(const NestedValue& input, const NestedValue& target, const FunctionOptions& options) {
  return EvaluateRatio(Ratio::kJaccard, input, target, options);
}
torch::Tensor Iou(const NestedValue& input, const NestedValue& target, const FunctionOptions& options) {
  return EvaluateRatio(Ratio::kJaccard, input, target, options);
}
torch::Tensor HammingLoss(const NestedValue& input, const NestedValue& target, const FunctionOptions& options) {
  return EvaluateRatio(Ratio::kHammingLoss, input, target, options);
}
torch::Tensor FBetaScore(const NestedValue& input, const NestedValue& target, const FunctionOptions& options) {
  return EvaluateRatio(Ratio::kFBeta, input, target, options);
}
torch::Tensor F1Score(const NestedValue& input, const NestedValue& target, FunctionOptions options) {
  options.beta = 1;
  return EvaluateRatio(Ratio::kFBeta, input, target, options);
}
torch::Tensor Auroc(const NestedValue& input, const NestedValue& target, const FunctionOptions& options) {
  return EvaluateCurve(Curve::kAuroc, input, target, options);
}
torch::Tensor Auprc(const NestedValue& input, const NestedValue& target, const FunctionOptions& options) {
  return EvaluateCurve(Curve::kAuprc, input, target, options);
}
torch::Tensor Mcc(const NestedValue& input, const NestedValue& target, const FunctionOptions& options) {
  return EvaluateMade(internal::MccMetric, input, target, options);
}
torch::Tensor CohenKappa(const NestedValue& input, const NestedValue& target, const FunctionOptions& options) {
  return EvaluateMade(internal::KappaMetric, input, target, options);
}
torch::Tensor CalibrationError(const NestedValue& input, const NestedValue& target, const FunctionOptions& options) {
  return EvaluateMade(internal::CalibrationMetric, input, target, options);
}
torch::Tensor ConfusionMatrix(const NestedValue& input, const NestedValue& target, const FunctionOptions& options) {
  return EvaluateMade(internal::ConfusionMetric, input, target, options);
}

}  // namespace athanor::metrics
