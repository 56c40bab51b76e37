#include "athanor/runner/record/run_results.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/runner/record/json_numbers.h"

namespace athanor {
namespace {

nlohmann::json Rounded(const nlohmann::json& value) {
  if (value.is_object()) {
    nlohmann::json copy = nlohmann::json::object();
    for (const auto& [key, item] : value.items()) copy[key] = Rounded(item);
    return copy;
  }
  if (!value.is_number_float()) return value;
  const double number = value.get<double>();
  if (!std::isfinite(number)) return nullptr;
  const double rounded = std::round(number * 1e8) / 1e8;
  return std::isfinite(rounded) ? rounded : number;
}

nlohmann::json With(nlohmann::json identity, const nlohmann::json& result) {
  identity.update(result);
  return identity;
}

absl::Status WriteJson(const std::string& folder, const char* name, nlohmann::json json) {
  return Annotate(WriteFileAtomically(absl::StrCat(folder, "/", name), Rounded(json).dump(4) + "\n"), name);
}

}  // namespace

std::string ScoreSplit(const ScoreConfig& config, std::vector<std::string> evaluate_splits) {
  if (config.split && !config.split->empty()) return *config.split;
  if (evaluate_splits.empty()) return "";
  std::sort(evaluate_splits.begin(), evaluate_splits.end());
  const auto val = std::find_if(evaluate_splits.begin(), evaluate_splits.end(),
                                [](const std::string& name) { return absl::StartsWithIgnoreCase(name, "val"); });
  return val != evaluate_splits.end() ? *val : evaluate_splits.front();
}

bool ScoreIsMinimized(const ScoreConfig& config) {
  if (config.direction != "auto") return config.direction == "min";
  const std::string name = absl::AsciiStrToLower(config.name);
  return absl::StrContains(name, "loss") || absl::StrContains(name, "error") || absl::StrContains(name, "perplexity");
}

RunResults::RunResults(const ScoreConfig& config, const std::vector<std::string>& evaluate_splits)
    : split_(ScoreSplit(config, evaluate_splits)), name_(config.name), minimized_(ScoreIsMinimized(config)) {}

void RunResults::Append(int64_t index, const ResultRow& row) {
  const auto found = std::find_if(rows_.begin(), rows_.end(), [&](const auto& item) { return item.first == index; });
  if (found == rows_.end()) {
    rows_.emplace_back(index, row);
    return;
  }
  for (const auto& [split, metrics] : row) {
    for (const auto& [name, value] : metrics) found->second[split][name] = value;
  }
}

std::vector<std::pair<int64_t, double>> RunResults::Scores() const {
  std::vector<std::pair<int64_t, double>> scores;
  for (const auto& [index, row] : rows_) {
    const auto split = row.find(split_);
    if (split == row.end()) continue;
    const auto value = split->second.find(name_);
    if (value != split->second.end()) scores.emplace_back(index, value->second);
  }
  return scores;
}

std::optional<int64_t> RunResults::best_index() const {
  std::optional<int64_t> best;
  double best_value = 0;
  for (const auto& [index, value] : Scores()) {
    if (!std::isfinite(value)) continue;
    if (best && (minimized_ ? value > best_value : value < best_value)) continue;
    best = index;
    best_value = value;
  }
  return best;
}

std::optional<int64_t> RunResults::latest_index() const {
  return rows_.empty() ? std::nullopt : std::optional<int64_t>(rows_.back().first);
}

std::optional<double> RunResults::best_score() const {
  const std::optional<int64_t> best = best_index();
  if (!best) return std::nullopt;
  return Row(*best)->at(split_).at(name_);
}

std::optional<double> RunResults::latest_score() const {
  const auto scores = Scores();
  return scores.empty() ? std::nullopt : std::optional<double>(scores.back().second);
}

bool RunResults::is_best() const {
  if (rows_.empty()) return true;
  const std::optional<double> best = best_score(), latest = latest_score();
  return best && latest && std::abs(*latest - *best) < kSameScore;
}

const ResultRow* RunResults::Row(int64_t index) const {
  for (const auto& [at, row] : rows_) {
    if (at == index) return &row;
  }
  return nullptr;
}

nlohmann::json RunResults::ResultAt(int64_t index) const {
  const ResultRow* row = Row(index);
  if (row == nullptr) return nullptr;
  nlohmann::json result = *row;
  result["index"] = index;
  return result;
}

nlohmann::json RunResults::BestResult() const {
  if (rows_.empty()) return nullptr;
  const int64_t without_score = Row(0) != nullptr ? 0 : rows_.front().first;
  return ResultAt(best_index().value_or(without_score));
}

nlohmann::json RunResults::LatestResult() const {
  return rows_.empty() ? nlohmann::json(nullptr) : ResultAt(rows_.back().first);
}

absl::Status RunResults::Write(const std::string& folder, const nlohmann::json& identity, bool is_best) const {
  if (rows_.empty()) return absl::OkStatus();
  nlohmann::json all = nlohmann::json::object();
  for (const auto& [index, row] : rows_) all[std::to_string(index)] = row;
  RETURN_IF_ERROR(WriteJson(folder, "results.json", With(identity, {{"results", all}})));
  RETURN_IF_ERROR(WriteJson(folder, "latest.json", With(identity, LatestResult())));
  if (!is_best) return absl::OkStatus();
  // The latest row, not BestResult(): it may be better by less than 1e-7, and the best checkpoint is that of now.
  return WriteJson(folder, "best.json", With(identity, LatestResult()));
}

absl::Status RunResults::Rewrite(const std::string& folder, const nlohmann::json& identity) const {
  if (rows_.empty()) {
    for (const char* name : {"results.json", "latest.json", "best.json"}) RemoveFile(absl::StrCat(folder, "/", name));
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(Write(folder, identity, /*is_best=*/false));
  if (!best_index().has_value()) return absl::OkStatus();
  return WriteJson(folder, "best.json", With(identity, BestResult()));
}

nlohmann::json RunResults::ToJson() const {
  nlohmann::json rows = nlohmann::json::array();
  for (const auto& [index, row] : rows_) {
    nlohmann::json metrics = nlohmann::json::object();
    for (const auto& [split, values] : row) metrics[split] = NumbersToJson(values);
    rows.push_back({{"index", index}, {"metrics", metrics}});
  }
  return {{"rows", rows}};
}

absl::Status RunResults::FromJson(const nlohmann::json& json) {
  std::vector<std::pair<int64_t, ResultRow>> rows;
  try {
    for (const nlohmann::json& item : json.at("rows")) {
      ResultRow row;
      for (const auto& [split, values] : item.at("metrics").items()) row[split] = NumbersFromJson(values);
      rows.emplace_back(item.at("index").get<int64_t>(), std::move(row));
    }
  } catch (const std::exception& error) {
    return absl::DataLossError(absl::StrCat("checkpoint: results are damaged: ", error.what()));
  }
  rows_ = std::move(rows);
  return absl::OkStatus();
}

}  // namespace athanor
