#include "athanor/runner/score_tracker.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace athanor {

ScoreTracker::ScoreTracker(const ScoreConfig& config, const std::vector<std::string>& splits) {
  std::string split = config.split.value_or("");
  if (split.empty() && !splits.empty()) {
    std::vector<std::string> sorted = splits;
    std::sort(sorted.begin(), sorted.end());
    const auto val = std::find_if(sorted.begin(), sorted.end(),
                                  [](const std::string& name) { return absl::StartsWithIgnoreCase(name, "val"); });
    split = val != sorted.end() ? *val : sorted.front();
  }
  if (!split.empty()) key_ = absl::StrCat(split, ".", config.name);
  const std::string name = absl::AsciiStrToLower(config.name);
  const bool smaller =
      absl::StrContains(name, "loss") || absl::StrContains(name, "error") || absl::StrContains(name, "perplexity");
  minimized_ = config.direction == "min" || (config.direction != "max" && smaller);
}

bool ScoreTracker::Observe(int64_t step, const std::map<std::string, double>& results) {
  if (key_.empty()) return false;
  const auto found = results.find(key_);
  const bool usable = found != results.end() && std::isfinite(found->second);
  if (usable && (!best_.has_value() || (minimized_ ? found->second < *best_ : found->second > *best_))) {
    best_ = found->second;
    best_step_ = step;
    since_best_ = 0;
    return true;
  }
  ++since_best_;
  return false;
}

nlohmann::json ScoreTracker::ToJson() const {
  return {{"key", key_},
          {"best", best_.has_value() ? nlohmann::json(*best_) : nlohmann::json(nullptr)},
          {"best_step", best_step_},
          {"since_best", since_best_}};
}

absl::Status ScoreTracker::FromJson(const nlohmann::json& json) {
  // The score may be changed on resume: then what was best under the other one says nothing.
  if (!json.is_object() || json.value("key", nlohmann::json()) != nlohmann::json(key_)) return absl::OkStatus();
  const auto best = json.find("best");
  const auto step = json.find("best_step");
  const auto since = json.find("since_best");
  if (best == json.end() || step == json.end() || since == json.end() || !(best->is_null() || best->is_number()) ||
      !step->is_number_integer() || !since->is_number_integer()) {
    return absl::DataLossError("checkpoint: score is not {key, best, best_step, since_best}");
  }
  best_ = best->is_null() ? std::nullopt : std::optional<double>(best->get<double>());
  best_step_ = step->get<int64_t>();
  since_best_ = since->get<int64_t>();
  return absl::OkStatus();
}

}  // namespace athanor
