// The results of a run, row by row, and which of them is best; the files results.json, latest.json and best.json.
//
//   RunResults results(config.score, /*evaluate_splits=*/{"val"});
//   results.Append(epoch, {{"train", {{"loss", 0.4}}}, {"val", {{"loss", 0.5}, {"accuracy", 0.9}}}});
//   if (results.is_best()) ...;
//   RETURN_IF_ERROR(results.Write(run_folder, {{"name", "lin-exp"}, {"id", id}}, results.is_best()));
//
// A row is a map split -> metric -> value, at an index: the epoch, or the step of a run that is counted in steps. A
// score that is not finite is never best. Among equal scores the latest row is best. Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "athanor/config/runner_config.h"

namespace athanor {

inline constexpr double kSameScore = 1e-7;  // scores that differ by less are equal

using ResultRow = std::map<std::string, std::map<std::string, double>>;

// The split that decides: the configured one, else the first of `evaluate_splits` (sorted) whose name begins with "val"
// in any letter case, else the first, else "".
std::string ScoreSplit(const ScoreConfig& config, std::vector<std::string> evaluate_splits);
// Whether a smaller score is better: config.direction, or with "auto" for names with loss, error or perplexity.
bool ScoreIsMinimized(const ScoreConfig& config);

class RunResults {
 public:
  RunResults(const ScoreConfig& config, const std::vector<std::string>& evaluate_splits);

  // A row at an index that exists is merged into it, metric by metric, and keeps its place.
  void Append(int64_t index, const ResultRow& row);

  bool empty() const { return rows_.empty(); }
  const std::string& score_split() const { return split_; }
  // In the order in which the rows came. Rows without the score are left out.
  std::vector<std::pair<int64_t, double>> Scores() const;
  std::optional<int64_t> best_index() const;  // unset: no row has a finite score
  std::optional<int64_t> latest_index() const;
  std::optional<double> best_score() const;
  std::optional<double> latest_score() const;  // of the latest row that has one; may be NaN
  // Whether the latest row is the best one, or within 1e-7 of it. True before the first row; false without a score.
  bool is_best() const;
  const ResultRow* Row(int64_t index) const;  // null: none
  const std::vector<std::pair<int64_t, ResultRow>>& rows() const { return rows_; }
  // {split: {metric: value}, …, "index": i}; null when there are no rows. Without any score the best row is that of
  // index 0 if there is one, else the first.
  nlohmann::json BestResult() const;
  nlohmann::json LatestResult() const;

  // Writes results.json and latest.json, and the latest row as best.json when it `is_best`: the caller's word, so that
  // the file and the best checkpoint are of one step. Numbers are rounded to 8 decimals; NaN and infinities become
  // null, which JSON can hold. `identity` is put in front of each. Atomic per file.
  absl::Status Write(const std::string& folder, const nlohmann::json& identity, bool is_best) const;

  // The files as they were when the rows were those of now: of a run that went back to a checkpoint.
  absl::Status Rewrite(const std::string& folder, const nlohmann::json& identity) const;

  nlohmann::json ToJson() const;
  absl::Status FromJson(const nlohmann::json& json);  // DATA_LOSS when it is not what ToJson() makes

 private:
  nlohmann::json ResultAt(int64_t index) const;

  std::string split_;
  std::string name_;
  bool minimized_;
  std::vector<std::pair<int64_t, ResultRow>> rows_;
};

}  // namespace athanor
