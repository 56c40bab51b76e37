#include "athanor/metrics/metric_func.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/metrics/functional/confusion.h"
#include "athanor/metrics/functional/curves.h"
#include "athanor/metrics/functional/regression_moments.h"

namespace athanor {
namespace {

template <class T>
absl::Status MergeOne(const char* what, const std::optional<T>& from, std::optional<T>* into) {
  if (!from || *into == from) return absl::OkStatus();
  if (!*into) {
    *into = from;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("metrics of one container contradict each other in ", what, ": ", **into, " and ", *from));
}

}  // namespace

int64_t MetricNeeds::width() const {
  switch (task) {
    case MetricTask::kMulticlass:
      return num_classes.value_or(1);
    case MetricTask::kMultilabel:
      return num_labels.value_or(1);
    case MetricTask::kRegression:
      return num_outputs.value_or(1);
    default:
      return 1;
  }
}

Preprocess MetricNeeds::MakePreprocess(Scores scores) const {
  const PreprocessOptions options{.ignore_index = ignore_index, .ignore_nan = true, .scores = scores};
  switch (task) {
    case MetricTask::kBinary:
      return Preprocess::Binary(options);
    case MetricTask::kMulticlass:
      return Preprocess::Multiclass(width(), options);
    case MetricTask::kMultilabel:
      return Preprocess::Multilabel(width(), options);
    case MetricTask::kRegression:
      return Preprocess::Regression(width(), options);
    case MetricTask::kNone:
      break;
  }
  return Preprocess();
}

MetricState MetricState::Count(const MetricNeeds& needs, const MaskedBatch& batch) {
  const torch::NoGradGuard no_grad;
  const double threshold = needs.threshold.value_or(0.5);
  MetricState state;
  if (needs.history) state.samples = batch;
  if (batch.input.scalar_type() == torch::kFloat64) state.dtype = torch::kFloat64;
  for (int64_t k : needs.confusion) {
    state.confusion[k] = metrics::CountConfusion(batch, needs.task, needs.width(), threshold, k);
  }
  for (int64_t bins : needs.curves) state.curves[bins] = metrics::CountCurve(batch, needs.task, needs.width(), bins);
  for (int64_t bins : needs.calibration) {
    state.calibration[bins] = metrics::CountCalibration(batch, needs.task, bins);
  }
  if (needs.moments) state.moments = metrics::CountMoments(batch, needs.width());
  return state;
}

MetricState MetricState::Empty(const MetricNeeds& needs, const torch::Device& device) {
  const auto floats = torch::TensorOptions().dtype(torch::kFloat32).device(device);
  const bool table = needs.task == MetricTask::kMulticlass || needs.task == MetricTask::kMultilabel;
  const torch::Tensor input = table ? torch::zeros({0, needs.width()}, floats) : torch::zeros({0}, floats);
  const bool labels = needs.task != MetricTask::kRegression && needs.task != MetricTask::kNone;
  const torch::Tensor target = needs.task == MetricTask::kMultilabel ? input : torch::zeros({0}, floats);
  MaskedBatch batch;
  batch.input = input;
  batch.target = labels ? target.to(torch::kInt64) : target;
  if (needs.task == MetricTask::kRegression && needs.width() > 1) {
    batch.input = batch.target = torch::zeros({0, needs.width()}, floats);
  }
  return Count(needs, batch);
}

void MetricState::Add(const MetricState& other) {
  const torch::NoGradGuard no_grad;
  if (other.dtype == torch::kFloat64) dtype = torch::kFloat64;
  // A copy to the host that is not waited for may be read before it has come.
  for (auto [mine, theirs] : {std::pair{&confusion, &other.confusion}, std::pair{&curves, &other.curves},
                              std::pair{&calibration, &other.calibration}}) {
    for (auto& [key, tensor] : *mine) {
      const torch::Tensor& more = theirs->at(key);
      if (tensor.device() != more.device()) tensor = tensor.to(more.device(), /*non_blocking=*/!more.is_cpu());
      tensor.add_(more);
    }
  }
  if (!moments.defined()) return;
  if (moments.device() != other.moments.device())
    moments = moments.to(other.moments.device(), /*non_blocking=*/!other.moments.is_cpu());
  moments = metrics::MergeMoments(moments, other.moments);
}

absl::StatusOr<MetricNeeds> MergeNeeds(const std::vector<MetricFunc>& metrics) {
  if (metrics.empty()) return absl::InvalidArgumentError("metrics: found none; at least one is needed");
  MetricNeeds all;
  for (const MetricFunc& metric : metrics) {
    const MetricNeeds& needs = metric.needs;
    if (!metric.compute) return absl::InvalidArgumentError(absl::StrCat("metric '", metric.name, "' has no compute"));
    if (all.task != MetricTask::kNone && needs.task != MetricTask::kNone && all.task != needs.task) {
      return absl::InvalidArgumentError(absl::StrCat("metrics of one container contradict each other in task: ",
                                                     ToString(all.task), " and ", ToString(needs.task)));
    }
    if (needs.task != MetricTask::kNone) all.task = needs.task;
    RETURN_IF_ERROR(MergeOne("num_classes", needs.num_classes, &all.num_classes));
    RETURN_IF_ERROR(MergeOne("num_labels", needs.num_labels, &all.num_labels));
    RETURN_IF_ERROR(MergeOne("num_outputs", needs.num_outputs, &all.num_outputs));
    RETURN_IF_ERROR(MergeOne("threshold", needs.threshold, &all.threshold));
    RETURN_IF_ERROR(MergeOne("ignore_index", needs.ignore_index, &all.ignore_index));
    all.ignore_nothing |= needs.ignore_nothing;
    all.confusion.insert(needs.confusion.begin(), needs.confusion.end());
    all.curves.insert(needs.curves.begin(), needs.curves.end());
    all.calibration.insert(needs.calibration.begin(), needs.calibration.end());
    all.moments |= needs.moments;
    all.history |= needs.history;
  }
  if (all.ignore_nothing && all.ignore_index) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics of one container contradict each other in ignore_index: none (every label counts) and ",
                     *all.ignore_index));
  }
  return all;
}

}  // namespace athanor
