#include "athanor/runner/record/score_tracker.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "athanor/runner/record/run_results.h"

namespace athanor {

ScoreTracker::ScoreTracker(const ScoreConfig& config, const std::vector<std::string>& splits)
    : minimized_(ScoreIsMinimized(config)) {
  const std::string split = ScoreSplit(config, splits);
  if (!split.empty()) key_ = absl::StrCat(split, ".", config.name);
}

bool ScoreTracker::Observe(int64_t step, const std::map<std::string, double>& results) {
  if (key_.empty()) return false;
  const auto found = results.find(key_);
  const bool usable = found != results.end() && std::isfinite(found->second);
  const bool better = usable && (!best_.has_value() || (minimized_ ? found->second < *best_ : found->second > *best_));
  const bool best = better || (usable && std::abs(found->second - *best_) < kSameScore);
  since_best_ = better ? 0 : since_best_ + 1;
  if (better) best_ = found->second;
  if (best) best_step_ = step;
  return best;
}

nlohmann::json ScoreTracker::ToJson() const {
  return {{"key", key_},
          {"minimized", minimized_},
          {"best", best_.has_value() ? nlohmann::json(*best_) : nlohmann::json(nullptr)},
          {"best_step", best_step_},
          {"since_best", since_best_}};
}

absl::Status ScoreTracker::FromJson(const nlohmann::json& json) {
  // The score may be changed on resume: then what was best under the other one says nothing.
  if (!json.is_object() || json.value("key", nlohmann::json()) != nlohmann::json(key_)) return absl::OkStatus();
  if (json.value("minimized", nlohmann::json(minimized_)) != nlohmann::json(minimized_)) return absl::OkStatus();
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
