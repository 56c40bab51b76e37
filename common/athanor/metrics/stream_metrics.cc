#include "athanor/metrics/stream_metrics.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"

namespace athanor {

const std::string& StreamMetric::name() const {
  if (const MetricFunc* metric = descriptor()) return metric->name;
  return std::get<1>(metric_).first;
}

const BatchFunction* StreamMetric::function() const {
  const auto* named = std::get_if<1>(&metric_);
  return named == nullptr ? nullptr : &named->second;
}

absl::StatusOr<std::unique_ptr<StreamMetrics>> StreamMetrics::Create(std::vector<StreamMetric> metrics,
                                                                     StreamOptions options) {
  if (metrics.empty()) return absl::InvalidArgumentError("metrics: found none; at least one is needed");
  std::vector<StreamMetric> kept;
  std::vector<MetricFunc> descriptors;
  for (StreamMetric& metric : metrics) {
    if (metric.name().empty()) return absl::InvalidArgumentError("metrics: one has no name");
    if (metric.function() != nullptr && !*metric.function())
      return absl::InvalidArgumentError(absl::StrCat("metric '", metric.name(), "' has no function"));
    const auto same = [&](const StreamMetric& other) { return other.name() == metric.name(); };
    if (std::any_of(kept.begin(), kept.end(), same)) continue;
    if (metric.descriptor() != nullptr) descriptors.push_back(*metric.descriptor());
    kept.push_back(std::move(metric));
  }
  MetricNeeds needs;
  if (!descriptors.empty()) {
    ASSIGN_OR_RETURN(needs, MergeNeeds(descriptors));
  }
  if (!options.preprocess_given) options.preprocess = needs.MakePreprocess(options.scores);
  return std::unique_ptr<StreamMetrics>(new StreamMetrics(std::move(kept), std::move(needs), std::move(options)));
}

StreamMetrics::StreamMetrics(std::vector<StreamMetric> metrics, MetricNeeds needs, StreamOptions options)
    : metrics_(std::move(metrics)), needs_(std::move(needs)), options_(std::move(options)), meters_(options_.sync) {
  for (const StreamMetric& metric : metrics_) {
    functions_ |= metric.function() != nullptr;
    meters_[metric.name()];
  }
}

void StreamMetrics::Update(const torch::Tensor& input, const torch::Tensor& target) {
  const torch::NoGradGuard no_grad;
  const MaskedBatch batch = options_.preprocess.Apply(input, target);
  const MetricState state = needs_.task == MetricTask::kNone ? MetricState{} : MetricState::Count(needs_, batch);
  LabeledBatch dropped;
  if (functions_) dropped = batch.Drop();  // functions get a selection, which waits for the device
  const bool all = !batch.valid.defined() && !batch.rows.defined();
  const int64_t rows = batch.input.dim() == 0 ? 1 : batch.input.size(0);
  const torch::Tensor n = all ? torch::tensor(rows, torch::kInt64) : batch.Samples();
  for (const StreamMetric& metric : metrics_) {
    torch::Tensor value = metric.descriptor() != nullptr ? metric.descriptor()->compute(state)
                                                         : (*metric.function())(dropped.input, dropped.target);
    if (value.numel() == 0) value = torch::full({}, std::nan(""), torch::kFloat64);
    AverageMeter& meter = meters_[metric.name()];
    const torch::Tensor known = value.isnan().all().logical_not();
    if (value.device().is_cpu() && all) {
      meter.Update(value, known.item<bool>() ? rows : 0);
    } else {
      meter.Update(value, n.to(value.device()) * known);
    }
  }
}

absl::StatusOr<int64_t> StreamMetrics::Samples(bool of_batch, bool ranks) {
  const auto local = of_batch ? meters_.n() : meters_.count();
  if (!ranks) return local.empty() ? 0 : local[0].second;
  ASSIGN_OR_RETURN(const MetricValues weights, meters_.Weights(of_batch));
  return weights.empty() ? 0 : static_cast<int64_t>(weights[0].second.item<double>());
}

void StreamMetrics::Reset() {
  meters_.Reset();
}

absl::StatusOr<std::unique_ptr<StreamMetrics>> MetricMeter(StreamMetric metric, StreamOptions options) {
  return StreamMetrics::Create({std::move(metric)}, std::move(options));
}

}  // namespace athanor
