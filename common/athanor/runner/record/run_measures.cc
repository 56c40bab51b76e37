#include "athanor/runner/record/run_measures.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

constexpr char kMetricsPrefix[] = "metrics.";
const std::string& OnlyName() {
  static const auto& name = *new std::string("train");
  return name;
}

}  // namespace

RunMeasures::RunMeasures(const std::vector<std::string>& trained_splits)
    : names_(trained_splits.size() > 1 ? trained_splits : std::vector<std::string>{OnlyName()}),
      current_(names_.front()) {
  for (const std::string& name : names_) meters_[name];
  if (names_.size() == 1) unread_ = in_row_ = {current_};
}

absl::Status RunMeasures::MakeMetrics(const std::function<absl::StatusOr<std::unique_ptr<MetricSet>>()>& make) {
  for (auto& [name, meters] : meters_) {
    ASSIGN_OR_RETURN(std::unique_ptr<MetricSet> metrics, make());
    meters.SetMetrics(std::move(metrics));
  }
  return absl::OkStatus();
}

const std::string& RunMeasures::NameOf(const std::string& split) const {
  return names_.size() > 1 ? split : names_.front();
}

StepMeters& RunMeasures::Of(const std::string& split) {
  const std::string& name = NameOf(split);
  StepMeters& meters = meters_.at(name);
  if (name != current_) {
    StepMeters& before = meters_.at(current_);
    before.Collect();
    meters.CountOn(before);
    current_ = name;
  }
  unread_.insert(name);
  in_row_.insert(name);
  return meters;
}

void RunMeasures::Collect() {
  meters_.at(current_).Collect();  // the others were read when their turn was over
}

absl::StatusOr<RunMeasures::BySplit> RunMeasures::ReadOut(const Membership& members) {
  Collect();
  BySplit read;
  for (const std::string& name : unread_) {
    ASSIGN_OR_RETURN(read[name], meters_.at(name).Means(members));
  }
  if (names_.size() > 1) unread_.clear();
  return read;
}

absl::StatusOr<RunMeasures::BySplit> RunMeasures::Rows(const Membership& members, bool with_metrics) {
  Collect();
  BySplit rows;
  for (const std::string& name : in_row_) {
    ASSIGN_OR_RETURN(rows[name], meters_.at(name).RowMeans(members, with_metrics));
  }
  if (names_.size() > 1) in_row_.clear();
  return rows;
}

std::string RunMeasures::PrefixOf(const std::string& name) const {
  return names_.size() > 1 ? absl::StrCat(kMetricsPrefix, name, "/") : kMetricsPrefix;
}

absl::Status RunMeasures::Capture(nlohmann::json* meters, TensorMap* per_rank) {
  RETURN_IF_ERROR(RunTorch("reading the losses", [&] {
    if (names_.size() == 1) *meters = meters_.at(current_).StateDict();
    if (names_.size() == 1) return;
    nlohmann::json states = nlohmann::json::object();
    for (auto& [name, one] : meters_) states[name] = one.StateDict();
    *meters = {{"splits", states}, {"current", current_}, {"unread", unread_}, {"in_row", in_row_}};
  }));
  for (auto& [name, one] : meters_) {
    if (one.metrics() == nullptr) continue;
    absl::StatusOr<TensorMap> metrics = one.metrics()->StateTensors();
    if (absl::IsUnimplemented(metrics.status())) continue;  // a set of the user's own
    RETURN_IF_ERROR(metrics.status());
    for (auto& [key, tensor] : *metrics) (*per_rank)[PrefixOf(name) + key] = std::move(tensor);
  }
  return absl::OkStatus();
}

absl::Status RunMeasures::Load(const nlohmann::json& meters, const TensorMap& per_rank, const torch::Device& device,
                               std::string* remark) {
  const bool several = meters.is_object() && meters.contains("splits");
  if (several != (names_.size() > 1)) return absl::OkStatus();  // of other splits than then: they begin anew
  for (auto& [name, one] : meters_) {
    const nlohmann::json state = several ? meters["splits"].value(name, nlohmann::json()) : meters;
    if (!state.is_null()) RETURN_IF_ERROR(one.LoadStateDict(state));
    RETURN_IF_ERROR(LoadMetrics(name, per_rank, device, remark));
  }
  if (!several) return absl::OkStatus();
  try {
    const auto known = [this](const nlohmann::json& names) {
      std::set<std::string> found;
      for (const auto& name : names) {
        if (meters_.contains(name.get<std::string>())) found.insert(name.get<std::string>());
      }
      return found;
    };
    unread_ = known(meters.at("unread"));
    in_row_ = known(meters.at("in_row"));
    for (const std::string& name : known({meters.at("current")})) current_ = name;
  } catch (const std::exception& error) {
    return absl::DataLossError(absl::StrCat("checkpoint: meters are damaged: ", error.what()));
  }
  return absl::OkStatus();
}

absl::Status RunMeasures::LoadMetrics(const std::string& name, const TensorMap& per_rank, const torch::Device& device,
                                      std::string* remark) {
  MetricSet* metrics = meters_.at(name).metrics();
  const std::string prefix = PrefixOf(name);
  TensorMap state;
  for (const auto& [key, tensor] : per_rank) {
    if (absl::StartsWith(key, prefix)) state[key.substr(prefix.size())] = tensor.to(device);
  }
  if (state.empty() || metrics == nullptr) return absl::OkStatus();
  // Other metrics than then begin anew, as they would without a checkpoint.
  const absl::Status loaded = metrics->LoadState(state);
  if (!loaded.ok()) *remark = absl::StrCat("the training metrics begin anew: ", loaded.message());
  return absl::OkStatus();
}

}  // namespace athanor
