// Which result row is best, row by row.
//
// Recorded as a defect: a row whose score is NaN or infinite can be reported as best while it is the latest one. Here
// such a score is never best; the family then expects the best finite row.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include <unistd.h>

#include "athanor/runner/record/run_results.h"
#include "tests/oracle/replay.h"

namespace athanor::oracle {
namespace {

using nlohmann::json;

// The same value; numbers within 1e-12, "nan" as NaN.
bool Equal(const json& expected, const json& found) {
  if (expected.is_object()) {
    if (!found.is_object() || expected.size() != found.size()) return false;
    for (const auto& [key, value] : expected.items()) {
      if (!found.contains(key) || !Equal(value, found[key])) return false;
    }
    return true;
  }
  if (expected.is_null() || found.is_null() || expected.is_boolean()) return expected == found;
  return Compare(Number(expected), Number(found), 1e-12, "").empty();
}

ResultRow RowOf(const json& splits) {
  ResultRow row;
  for (const auto& [split, metrics] : splits.items()) {
    for (const auto& [name, value] : metrics.items()) row[split][name] = Number(value);
  }
  return row;
}

template <class T>
json OrNull(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}

json Observed(const RunResults& results) {
  json found = {{"is_best", results.is_best()},
                {"best_score", OrNull(results.best_score())},
                {"latest_score", OrNull(results.latest_score())},
                {"best_result", results.BestResult()},
                {"latest_result", results.LatestResult()},
                // A run without a score says 0 in the recorded interface.
                {"best_index", results.best_index().value_or(0)}};
  json scores = json::object();
  for (const auto& [index, value] : results.Scores()) scores[std::to_string(index)] = value;
  found["scores"] = scores.empty() ? json(nullptr) : scores;
  return found;
}

bool Finite(const json& scores) {
  for (const auto& value : scores.is_object() ? scores : json::object()) {
    if (!std::isfinite(Number(value))) return false;
  }
  return true;
}

class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "athanor-scores-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  json Read(const std::string& name) const {
    std::ifstream in(path_ + "/" + name);
    return in ? json::parse(in) : json(nullptr);
  }

 private:
  std::string path_;
};

ScoreConfig ConfigOf(const json& config) {
  ScoreConfig score;
  if (config.contains("score_split") && !config["score_split"].is_null()) score.split = config["score_split"];
  score.name = config.value("score_name", "loss");
  // The recorded rule: only `loss` itself is minimised. Here the direction can be said.
  score.direction = score.name == "loss" ? "min" : "max";
  return score;
}

std::vector<std::string> EvaluateSplits(const json& test) {
  std::vector<std::string> splits;
  const json& config = test.at("config");
  if (config.contains("evaluate_splits")) {
    const json& named = config["evaluate_splits"];
    if (named.is_string()) return {named.get<std::string>()};
    return named.get<std::vector<std::string>>();
  }
  for (const json& split : test.at("splits")) {
    if (split != "train") splits.push_back(split);
  }
  return splits;
}

std::string CheckRow(const json& expected, const RunResults& results, const Folder& folder) {
  const json found = Observed(results);
  const bool finite = Finite(found["scores"]);
  for (const char* key :
       {"is_best", "best_index", "best_score", "latest_score", "scores", "best_result", "latest_result"}) {
    if (!expected.contains(key)) continue;
    const bool about_best = std::string(key).rfind("best_", 0) == 0 || std::string(key) == "is_best";
    if (about_best && !finite) continue;  // checked below
    if (!Equal(expected[key], found[key])) {
      return std::string(key) + " after row " + expected.value("index", json()).dump() + ": expected " +
             expected[key].dump() + ", found " + found[key].dump();
    }
  }
  const json best_file = folder.Read("best.json");
  if (finite && expected.contains("best_json_index")) {
    const json index = best_file.is_null() ? json(nullptr) : best_file.at("index");
    if (!Equal(expected["best_json_index"], index)) return "best.json is of index " + index.dump();
  }
  if (!finite && results.best_score() && !std::isfinite(*results.best_score())) return "a score that is not finite won";
  if (!finite && results.is_best() && !std::isfinite(results.latest_score().value_or(0)))
    return "a score that is not finite counts as best";
  return "";
}

std::string Check(const json& test) {
  RunResults results(ConfigOf(test.at("config")), EvaluateSplits(test));
  Folder folder;
  const json& before = test.at("sequence").at(0).at("before_any_result");
  if (before.contains("score_split") &&
      OrNull(results.score_split().empty() ? std::nullopt : std::optional<std::string>(results.score_split())) !=
          before["score_split"]) {
    return "score split: found " + results.score_split();
  }
  if (!results.is_best() || !results.BestResult().is_null()) return "something is best before the first row";
  for (size_t i = 0; i < test.at("rows").size(); ++i) {
    const json& row = test["rows"][i];
    results.Append(row[0].get<int64_t>(), RowOf(row[1]));
    if (absl::Status status = results.Write(folder.path(), {{"id", "x"}}, results.is_best()); !status.ok())
      return status.ToString();
    // A state that is saved and restored in between changes nothing.
    RunResults restored(ConfigOf(test.at("config")), EvaluateSplits(test));
    if (absl::Status status = restored.FromJson(json::parse(results.ToJson().dump())); !status.ok())
      return status.ToString();
    results = restored;
    if (i + 1 < test["sequence"].size()) {
      // Later merges show in the recorded rows already: compare rows only when no index comes twice.
      json expected = test["sequence"][i + 1];
      std::set<int64_t> indices;
      for (const json& other : test["rows"]) indices.insert(other[0].get<int64_t>());
      if (indices.size() != test["rows"].size() && i + 1 < test["rows"].size()) {
        expected.erase("best_result");
        expected.erase("latest_result");
      }
      if (std::string text = CheckRow(expected, results, folder); !text.empty()) return text;
    }
  }
  for (const json& name : test.value("workspace_files", json::array())) {
    // The metadata folder is the runner's, not of the results.
    if (name != "metadata" && !std::filesystem::exists(folder.path() + "/" + name.get<std::string>()))
      return name.get<std::string>() + " was not written";
  }
  return "";
}

void Replay(const json& file, Report& report) {
  for (const json& test : file.at("cases")) {
    report.Case(test.at("name").get<std::string>(), [&] { return Check(test); });
  }
}

ATHANOR_ORACLE_FAMILY(runner_scores, Replay);

}  // namespace
}  // namespace athanor::oracle
