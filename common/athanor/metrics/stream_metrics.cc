#include "athanor/metrics/stream_metrics.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/metrics/state_reader.h"
#include "athanor/torch/status.h"

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
  if (functions_) dropped = batch.Drop();
  const bool all = !batch.valid.defined() && !batch.rows.defined();
  const int64_t rows = batch.input.dim() == 0 ? 1 : batch.input.size(0);
  const torch::Device device = batch.input.device();
  const torch::Tensor n =
      all ? torch::full({}, rows, torch::TensorOptions().dtype(torch::kInt64).device(device)) : batch.Samples();
  std::vector<torch::Tensor> values;  // all of them before the first one counts: a function may throw
  for (const StreamMetric& metric : metrics_) {
    torch::Tensor value = metric.descriptor() != nullptr ? metric.descriptor()->compute(state)
                                                         : (*metric.function())(dropped.input, dropped.target);
    if (value.numel() == 0)
      value = torch::full({}, std::nan(""), torch::TensorOptions().dtype(torch::kFloat64).device(device));
    if (value.device() != device) value = value.to(device, /*non_blocking=*/value.is_cpu());
    values.push_back(NanWhere(batch.nan_scores, value));
  }
  wrong_.Add(batch);
  for (size_t i = 0; i < metrics_.size(); ++i) {
    AverageMeter& meter = meters_[metrics_[i].name()];
    const torch::Tensor known = values[i].isnan().logical_not();
    if (device.is_cpu() && all && (known.dim() == 0 || known.all().item<bool>() || !known.any().item<bool>())) {
      meter.Update(values[i], known.any().item<bool>() ? rows : 0);
    } else {
      meter.Update(values[i], n * known);  // of a vector the entries that are known
    }
  }
}

absl::StatusOr<MetricValues> StreamMetrics::Value() {
  RETURN_IF_ERROR(wrong_.Check(needs_.task, needs_.width()));
  return meters_.Value();  // NaN scores have made the value of their batch NaN
}

absl::StatusOr<MetricValues> StreamMetrics::Batch() {
  if (alone()) return Value();
  ASSIGN_OR_RETURN(JointValues joint, ReadJointly(*this, ReadOut::kBatch));
  return std::move(joint.values);
}

absl::StatusOr<MetricValues> StreamMetrics::Average() {
  if (alone()) {
    RETURN_IF_ERROR(wrong_.Check(needs_.task, needs_.width()));
    ASSIGN_OR_RETURN(MetricValues values, meters_.Average());
    for (auto& [name, value] : values) value = NanWhere(wrong_.nans, value);
    return values;
  }
  ASSIGN_OR_RETURN(JointValues joint, ReadJointly(*this, ReadOut::kAll));
  return std::move(joint.values);
}

RankPart StreamMetrics::PartFor(ReadOut of) {
  RankPart part = meters_.PartFor(of);
  const absl::Status counted = RunTorch("metrics", [&] {
    part.numbers.insert(part.numbers.end(),
                        {wrong_.LabelCount(), wrong_.ScoreCount(), of == ReadOut::kAll ? wrong_.NanCount() : 0});
  });
  part.status.Update(counted);
  return part;
}

absl::StatusOr<JointValues> StreamMetrics::FromParts(ReadOut /*of*/, const std::vector<RankPart>& parts) {
  int64_t labels = 0, scores = 0, nans = 0;
  for (const RankPart& part : parts) {
    if (part.numbers.size() != metrics_.size() + 3) return absl::InternalError("metrics: a rank sent something else");
    labels += part.numbers[metrics_.size()];
    scores += part.numbers[metrics_.size() + 1];
    nans += part.numbers[metrics_.size() + 2];
  }
  RETURN_IF_ERROR(WrongInput::Check(labels, scores, needs_.task, needs_.width()));
  ASSIGN_OR_RETURN(const AverageMeters::Parts merged, meters_.Merge(parts));
  JointValues joint{meters_.Means(merged), static_cast<int64_t>(merged[0].weight.max().item<double>()), {}};
  for (auto& [name, value] : joint.values) value = NanWhere(torch::tensor(nans, torch::kInt64), value);
  for (const auto& part : merged) joint.weights.push_back(part.weight);
  return joint;
}

absl::StatusOr<std::string> StreamMetrics::Text(int decimals) {
  RETURN_IF_ERROR(wrong_.Check(needs_.task, needs_.width()));
  return nameless_ ? meters_.Find(metrics_.front().name())->Text(decimals) : meters_.Text(decimals);
}

absl::StatusOr<int64_t> StreamMetrics::Samples(bool of_batch, bool ranks) {
  const auto local = of_batch ? meters_.n() : meters_.count();
  if (!ranks) return local.empty() ? 0 : local[0].second;
  ASSIGN_OR_RETURN(const MetricValues weights, meters_.Weights(of_batch));
  return weights.empty() ? 0 : static_cast<int64_t>(weights[0].second.max().item<double>());
}

absl::StatusOr<std::vector<torch::Tensor>> StreamMetrics::Weights(bool of_batch, bool ranks) {
  std::vector<torch::Tensor> weights;
  if (ranks && !alone()) {
    ASSIGN_OR_RETURN(const MetricValues all, meters_.Weights(of_batch));
    for (const auto& [name, weight] : all) weights.push_back(weight);
    return weights;
  }
  return RunTorch("metrics", [&] {
    for (const auto& [name, meter] : meters_.meters_)
      weights.push_back(meter->PartOf(of_batch ? ReadOut::kBatch : ReadOut::kAll).weight);
    return weights;
  });
}

absl::StatusOr<TensorMap> StreamMetrics::StateTensors() {
  ASSIGN_OR_RETURN(TensorMap state, meters_.StateTensors());
  wrong_.Save(&state);
  return state;
}

absl::StatusOr<std::function<void()>> StreamMetrics::PlanLoad(const TensorMap& state) {
  TensorMap counts, means = state;
  for (const char* key : {"unknown_labels", "outside_of_range", "nan_scores"}) {
    if (auto found = means.extract(key); !found.empty()) counts.insert(std::move(found));
  }
  StateReader reader(counts);
  absl::StatusOr<WrongInput> wrong;
  RETURN_IF_ERROR(RunTorch("metrics", [&] { wrong = WrongInput::Read(&reader); }));
  RETURN_IF_ERROR(wrong.status());
  ASSIGN_OR_RETURN(const std::function<void()> load, meters_.PlanLoad(means));
  return [this, load, wrong = *std::move(wrong)] {
    load();
    wrong_ = wrong;
  };
}

void StreamMetrics::Reset() {
  meters_.Reset();
  wrong_ = {};
}

absl::StatusOr<std::unique_ptr<StreamMetrics>> MetricMeter(StreamMetric metric, StreamOptions options) {
  absl::StatusOr<std::unique_ptr<StreamMetrics>> meter = StreamMetrics::Create({std::move(metric)}, std::move(options));
  if (meter.ok()) (*meter)->nameless_ = true;
  return meter;
}

}  // namespace athanor
