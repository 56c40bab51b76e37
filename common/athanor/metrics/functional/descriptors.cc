#include "athanor/metrics/functional/descriptors.h"

namespace athanor::metrics::internal {
namespace {

MetricNeeds NeedsOf(MetricTask task, int64_t width, const MetricOptions& options) {
  TORCH_CHECK_VALUE(width >= 1, ToString(task), " metric: found ", width, " classes or labels; allowed: 1 or more");
  MetricNeeds needs;
  needs.task = task;
  if (task == MetricTask::kMulticlass) needs.num_classes = width;
  if (task == MetricTask::kMultilabel) needs.num_labels = width;
  needs.ignore_index = options.ignore_index;
  needs.ignore_nothing = !options.ignore_index;
  return needs;
}

// The matrix of `k`, and the threshold that binary and multilabel decisions depend on.
MetricNeeds ConfusionNeeds(MetricTask task, int64_t width, const MetricOptions& options) {
  MetricNeeds needs = NeedsOf(task, width, options);
  TORCH_CHECK_VALUE(options.k >= 1 && (task != MetricTask::kMulticlass || options.k <= width), "k: found ", options.k,
                    "; allowed: 1 .. ", width);
  if (task != MetricTask::kMulticlass) needs.threshold = options.threshold;
  needs.confusion = {task == MetricTask::kMulticlass ? options.k : 1};
  return needs;
}

}  // namespace

MetricFunc RatioMetric(MetricTask task, int64_t width, Ratio ratio, const char* name, const MetricOptions& options) {
  if (task == MetricTask::kMulticlass && ratio == Ratio::kBalancedAccuracy) {
    TORCH_CHECK_VALUE(options.average == Average::kMacro && options.k == 1,
                      "multiclass balanced accuracy is the macro average of recall; allowed: average macro, k 1");
  }
  TORCH_CHECK_VALUE(options.beta > 0, "beta: found ", options.beta, "; allowed: greater than 0");
  MetricNeeds needs = ConfusionNeeds(task, width, options);
  const int64_t k = *needs.confusion.begin();
  return {name, needs, [=](const MetricState& state) {
            return RatioOf(ratio, state.confusion.at(k), task, options.average, options.beta);
          }};
}

MetricFunc CurveMetric(MetricTask task, int64_t width, Curve curve, const MetricOptions& options) {
  MetricNeeds needs = NeedsOf(task, width, options);
  const char* name = curve == Curve::kAuroc ? "auroc" : "auprc";
  const int64_t bins = options.thresholds;
  if (bins == 0) {
    needs.history = true;
    return {name, needs, [=](const MetricState& state) {
              return AreaOf(curve, state.samples, task, width, options.average, options.missing);
            }};
  }
  TORCH_CHECK_VALUE(bins >= 2, "thresholds: found ", bins, "; allowed: 0 (exact) or 2 and more");
  needs.curves = {bins};
  return {name, needs,
          [=](const MetricState& state) { return BinnedAreaOf(curve, state.curves.at(bins), task, options.average); }};
}

MetricFunc MccMetric(MetricTask task, int64_t width, const MetricOptions& options) {
  const MetricNeeds needs = ConfusionNeeds(task, width, options);
  const int64_t k = *needs.confusion.begin();
  return {"mcc", needs, [k](const MetricState& state) { return MatthewsCorrelation(state.confusion.at(k)); }};
}

MetricFunc KappaMetric(MetricTask task, int64_t width, const MetricOptions& options) {
  const MetricNeeds needs = ConfusionNeeds(task, width, options);
  const int64_t k = *needs.confusion.begin();
  const KappaWeights weights = options.weights;
  return {"kappa", needs, [=](const MetricState& state) { return KappaOf(state.confusion.at(k), weights); }};
}

MetricFunc CalibrationMetric(MetricTask task, int64_t width, const MetricOptions& options) {
  MetricNeeds needs = NeedsOf(task, width, options);
  const int64_t bins = options.bins;
  const CalibrationNorm norm = options.norm;
  TORCH_CHECK_VALUE(bins >= 1, "bins: found ", bins, "; allowed: 1 or more");
  needs.calibration = {bins};
  return {"ece", needs, [=](const MetricState& state) { return CalibrationErrorOf(state.calibration.at(bins), norm); }};
}

MetricFunc ConfusionMetric(MetricTask task, int64_t width, const MetricOptions& options) {
  const MetricNeeds needs = ConfusionNeeds(task, width, options);
  const int64_t k = *needs.confusion.begin();
  const Normalize normalize = options.normalize;
  return {"confmat", needs,
          [=](const MetricState& state) { return NormalizeConfusion(state.confusion.at(k), normalize); }};
}

}  // namespace athanor::metrics::internal
