// Which evaluation was best, and how many have passed without a better one. Survives restarts.
//
//   ScoreTracker tracker(config.score, /*splits=*/{"val"});
//   bool best = tracker.Observe(step, results);   // results: "val.loss", "val.accuracy", …
//   tracker.since_best() > patience               // time to stop
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "athanor/config/runner_config.h"

namespace athanor {

class ScoreTracker {
 public:
  // `splits`: those that are evaluated; the score's split is the configured one, else the first (sorted) that begins
  // with "val", else the first.
  ScoreTracker(const ScoreConfig& config, const std::vector<std::string>& splits);

  // True when the score is finite and not worse than the best before, within kSameScore: of equal ones the newest is
  // the best, as in RunResults. Only a better one counts as progress: since_best() goes on over equal ones. A missing
  // or non-finite score is never best.
  bool Observe(int64_t step, const std::map<std::string, double>& results);

  const std::string& key() const { return key_; }  // "val.loss"; empty when nothing is evaluated
  bool minimized() const { return minimized_; }
  std::optional<double> best() const { return best_; }
  int64_t best_step() const { return best_step_; }
  int64_t since_best() const { return since_best_; }

  nlohmann::json ToJson() const;
  absl::Status FromJson(const nlohmann::json& json);

 private:
  std::string key_;
  bool minimized_ = true;
  std::optional<double> best_;
  int64_t best_step_ = -1;
  int64_t since_best_ = 0;
};

}  // namespace athanor
