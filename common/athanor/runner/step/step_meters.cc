#include "athanor/runner/step/step_meters.h"

#include <cmath>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/parallel/process_group.h"
#include "athanor/runner/record/json_numbers.h"

namespace athanor {
namespace {

constexpr size_t kMaxPending = 4096;  // holds device memory: read even if nobody asks

}  // namespace

void StepMeters::AddValue(const std::string& name, const torch::Tensor& value, int64_t weight,
                          const torch::Tensor& own_weight, bool is_loss) {
  Meter& meter = meters_[name];
  if (weight > 0) pending_.push_back({&meter, value.detach(), static_cast<double>(weight), own_weight, is_loss});
}

void StepMeters::Add(const StepOutput& output, int64_t weight) {
  if (pending_.capacity() == 0) pending_.reserve(kMaxPending);
  if (pending_.size() + output.metrics.size() + 1 > kMaxPending) Collect();
  AddValue("loss", output.loss, weight, output.weight, true);
  for (const auto& [name, value] : output.metrics) AddValue(name, value, weight, {}, false);
  if (metrics_ == nullptr || weight == 0) return;
  if (!output.tasks.empty()) {
    const absl::Status updated = metrics_->UpdateTasks(output.tasks);
    TORCH_CHECK(updated.ok(), "the forward function's tasks: ", std::string(updated.message()));
    return;
  }
  TORCH_CHECK(output.scores.defined() && output.labels.defined(),
              "the forward function gave no scores and labels, which the runner's metrics need");
  metrics_->Update(output.scores.detach(), output.labels);
}

void StepMeters::Collect() {
  if (pending_.empty()) return;
  std::vector<double> values;
  values.reserve(pending_.size());
  if (pending_.front().value.is_cpu()) {
    for (Entry& entry : pending_) {
      values.push_back(entry.value.item<double>());
      if (entry.own_weight.defined()) entry.weight = entry.own_weight.item<double>();
    }
  } else {
    std::vector<torch::Tensor> scalars;
    scalars.reserve(pending_.size());
    for (const Entry& entry : pending_) scalars.push_back(entry.value.reshape({}).to(torch::kFloat32));
    for (const Entry& entry : pending_) {
      if (entry.own_weight.defined()) scalars.push_back(entry.own_weight.reshape({}).to(torch::kFloat32));
    }
    const torch::Tensor host = torch::stack(scalars).cpu();
    const float* next = host.data_ptr<float>();
    for (size_t i = 0; i < pending_.size(); ++i) values.push_back(*next++);
    for (Entry& entry : pending_) {
      if (entry.own_weight.defined()) entry.weight = *next++;
    }
  }
  for (size_t i = 0; i < pending_.size(); ++i) {
    if (pending_[i].weight <= 0) continue;  // ignored as a whole: its value may be NaN
    for (Sum* sum : {&pending_[i].meter->read_out, &pending_[i].meter->row}) {
      sum->sum += values[i] * pending_[i].weight;
      sum->weight += pending_[i].weight;
    }
    if (!pending_[i].is_loss) continue;
    const bool finite = std::isfinite(values[i]);
    in_a_row_ = finite ? 0 : in_a_row_ + 1;
    total_ += finite ? 0 : 1;
  }
  pending_.clear();
}

absl::StatusOr<std::map<std::string, double>> StepMeters::Means(const Membership& members) {
  ASSIGN_OR_RETURN(auto means, TakeMeans(&Meter::read_out, members));
  if (metrics_ != nullptr) RETURN_IF_ERROR(ReadMetrics(&means));
  return means;
}

absl::StatusOr<std::map<std::string, double>> StepMeters::RowMeans(const Membership& members, bool with_metrics) {
  ASSIGN_OR_RETURN(auto means, TakeMeans(&Meter::row, members));
  if (metrics_ != nullptr && with_metrics) RETURN_IF_ERROR(ReadMetrics(&means));
  return means;
}

absl::StatusOr<std::map<std::string, double>> StepMeters::TakeMeans(Sum Meter::* which, const Membership& members) {
  Collect();
  std::vector<double> sums;
  std::string names;
  for (const auto& [name, meter] : meters_) {
    sums.push_back((meter.*which).sum);
    sums.push_back((meter.*which).weight);
    absl::StrAppend(&names, name, "\n");
  }
  if (members.several()) {
    ProcessGroup* const group = members.group();
    const int64_t signature = static_cast<int64_t>(std::hash<std::string>()(names));
    ASSIGN_OR_RETURN(const Agreement agreement, group->AllAgree({signature}));
    if (agreement.min[0] != agreement.max[0]) {
      return absl::InvalidArgumentError(
          "metrics: the ranks' forward passes gave different names; every call must give the same");
    }
    ASSIGN_OR_RETURN(sums, group->AllReduceSum(sums));
  }
  std::map<std::string, double> means;
  size_t i = 0;
  for (auto& [name, meter] : meters_) {
    means[name] = sums[i + 1] > 0 ? sums[i] / sums[i + 1] : std::nan("");
    meter.*which = Sum{};
    i += 2;
  }
  return means;
}

absl::Status StepMeters::ReadMetrics(std::map<std::string, double>* means) {
  ASSIGN_OR_RETURN(const MetricValues values, metrics_->Average());
  for (const auto& [name, value] : values) {
    const torch::Tensor numbers = value.to(torch::kCPU, torch::kFloat64).reshape({-1});
    for (int64_t i = 0; i < numbers.numel(); ++i) {
      (*means)[numbers.numel() == 1 ? name : absl::StrCat(name, "_", i)] = numbers[i].item<double>();
    }
  }
  metrics_->Reset();
  return absl::OkStatus();
}

nlohmann::json StepMeters::StateDict() {
  Collect();
  nlohmann::json sums = nlohmann::json::object();
  for (const auto& [name, meter] : meters_) {
    sums[name] = nlohmann::json::array();
    for (const double value : {meter.read_out.sum, meter.read_out.weight, meter.row.sum, meter.row.weight})
      sums[name].push_back(NumberToJson(value));
  }
  return {{"sums", sums}, {"nonfinite_in_a_row", in_a_row_}, {"nonfinite_total", total_}};
}

absl::Status StepMeters::LoadStateDict(const nlohmann::json& state) {
  std::map<std::string, Meter> meters;
  int64_t in_a_row = 0, total = 0;
  try {
    for (const auto& [name, values] : state.at("sums").items()) {
      const Sum read_out{.sum = NumberFromJson(values.at(0)), .weight = NumberFromJson(values.at(1))};
      const bool with_row = values.size() > 2;  // not in checkpoints of earlier versions
      meters[name] = {.read_out = read_out,
                      .row = with_row ? Sum{NumberFromJson(values.at(2)), NumberFromJson(values.at(3))} : read_out};
    }
    in_a_row = state.at("nonfinite_in_a_row").get<int64_t>();
    total = state.at("nonfinite_total").get<int64_t>();
  } catch (const std::exception& error) {
    return absl::DataLossError(absl::StrCat("checkpoint: meters are damaged: ", error.what()));
  }
  pending_.clear();
  meters_ = std::move(meters);
  in_a_row_ = in_a_row;
  total_ = total;
  return absl::OkStatus();
}

void StepMeters::Reset() {
  pending_.clear();
  for (auto& [name, meter] : meters_) meter = Meter{};
  if (metrics_ != nullptr) metrics_->Reset();
}

}  // namespace athanor
