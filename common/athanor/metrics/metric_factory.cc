#include "athanor/metrics/metric_factory.h"

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/metrics/functional/binary.h"
#include "athanor/metrics/functional/multiclass.h"
#include "athanor/metrics/functional/multilabel.h"
#include "athanor/metrics/functional/regression.h"

namespace athanor {
namespace {

// The size that a task needs: its own name first, num_labels in its place.
absl::StatusOr<int64_t> WidthOf(MetricTask task, const MetricsOptions& options) {
  for (const auto& [name, value] :
       {std::pair{"num_classes", options.num_classes}, std::pair{"num_labels", options.num_labels},
        std::pair{"num_outputs", options.num_outputs}}) {
    if (value && *value <= 0)
      return absl::InvalidArgumentError(absl::StrCat(name, ": found ", *value, ", must be > 0"));
  }
  if (options.num_classes && options.num_labels && *options.num_classes != *options.num_labels) {
    return absl::InvalidArgumentError(absl::StrCat("num_classes is ", *options.num_classes, " and num_labels is ",
                                                   *options.num_labels, ": they must agree"));
  }
  if (task == MetricTask::kBinary) return 1;
  const bool classes = task == MetricTask::kMulticlass, labels = task == MetricTask::kMultilabel;
  const char* const name = classes ? "num_classes" : labels ? "num_labels" : "num_outputs";
  const std::optional<int64_t> own = classes ? options.num_classes : labels ? options.num_labels : options.num_outputs;
  if (own && options.num_labels && *own != *options.num_labels) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " is ", *own, " and num_labels is ", *options.num_labels, ": they must agree"));
  }
  if (own) return *own;
  if (options.num_labels) return *options.num_labels;
  if (task == MetricTask::kRegression) return 1;
  return absl::InvalidArgumentError(absl::StrCat(name, " is needed for ", ToString(task), " metrics"));
}

Preprocess PreprocessOf(MetricTask task, int64_t width, const MetricsOptions& options) {
  const PreprocessOptions how{options.options.ignore_index, options.ignore_nan, options.scores};
  switch (task) {
    case MetricTask::kBinary:
      return Preprocess::Binary(how);
    case MetricTask::kMulticlass:
      return Preprocess::Multiclass(width, how);
    case MetricTask::kMultilabel:
      return Preprocess::Multilabel(width, how);
    default:
      return Preprocess::Regression(width, how);
  }
}

}  // namespace

std::vector<MetricFunc> DefaultMetrics(MetricTask task, int64_t width, const metrics::MetricOptions& o) {
  using namespace metrics;  // NOLINT(google-build-using-namespace): the descriptors of all tasks
  switch (task) {
    case MetricTask::kBinary:
      return {BinaryAuroc(o), BinaryAuprc(o), BinaryAccuracy(o), BinaryF1(o), BinaryMcc(o)};
    case MetricTask::kMulticlass:
      return {MulticlassAuroc(width, o), MulticlassAuprc(width, o), MulticlassAccuracy(width, o),
              MulticlassF1(width, o), MulticlassMcc(width, o)};
    case MetricTask::kMultilabel:
      return {MultilabelAuroc(width, o), MultilabelAuprc(width, o), MultilabelAccuracy(width, o),
              MultilabelF1(width, o), MultilabelMcc(width, o)};
    default:
      return {Pearson(width), Spearman(width), R2Score(width), Mse(width), Rmse(width)};
  }
}

absl::StatusOr<std::unique_ptr<MetricSet>> BuildMetrics(const MetricsOptions& options) {
  ASSIGN_OR_RETURN(const MetricTask task, ParseTask(options.type));
  ASSIGN_OR_RETURN(const int64_t width, WidthOf(task, options));
  const std::vector<MetricFunc> metrics =
      options.metrics.empty() ? DefaultMetrics(task, width, options.options) : options.metrics;
  const Preprocess preprocess = PreprocessOf(task, width, options);
  if (options.mode == MetricMode::kGlobal) {
    ASSIGN_OR_RETURN(auto global, GlobalMetrics::Create(metrics, {options.scores, preprocess, options.sync}));
    return std::unique_ptr<MetricSet>(std::move(global));
  }
  ASSIGN_OR_RETURN(auto stream, StreamMetrics::Create({metrics.begin(), metrics.end()},
                                                      {preprocess, true, options.scores, options.sync}));
  return std::unique_ptr<MetricSet>(std::move(stream));
}

}  // namespace athanor
