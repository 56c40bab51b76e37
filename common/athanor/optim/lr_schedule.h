// Learning-rate schedules as pure arithmetic: position -> learning rate. No LibTorch.
//
//   LrScheduleOptions options;
//   options.type = "cosine";  options.total_steps = 1000;
//   ASSIGN_OR_RETURN(LrSchedule schedule, LrSchedule::Make(options, {0.1}));
//   optimizer.SetLr(0, schedule.lrs()[0]);      // for the first update
//   ... update ...;  schedule.Step();           // then lrs() is that of the second
//
// linear, cosine, constant: with the base rate b, T total steps, W of warm-up, C of cool-down, the least rate m, and
// F = final_lr or b * final_lr_ratio, the k-th update runs with s = k:
//   p = min(s / T, 1);  r = p (linear), (1 - cos(pi p)) / 2 (cosine), 0 (constant)
//   l = b (F / b)^r (percentile), (1 - r)(b - F) + F (numerical)
//   warm-up (s < W): l = (s / W)(l - m) + m;  cool-down (s > T - C): l = (1 - (s - (T - C)) / C)(l - m) + m
//   result: max(m, l)
// The others follow the PyTorch schedules of the same name, in closed form where there is one.
//
// Not thread-safe; a value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace athanor {

struct LrScheduleOptions {
  // linear, cosine, constant, step, multistep, exponential, cosine_annealing, cosine_warm_restarts, one_cycle, cyclic,
  // reduce_on_plateau
  std::string type = "cosine";
  int64_t total_steps = 0;  // required by linear, cosine, constant and one_cycle
  // linear, cosine, constant
  std::optional<int64_t> warmup_steps;    // default total / 20
  std::optional<double> warmup_ratio;     // instead: share of total, rounded down
  std::optional<int64_t> cooldown_steps;  // default total / 5
  std::optional<double> cooldown_ratio;
  std::optional<double> final_lr;
  std::optional<double> final_lr_ratio;  // default 0.001 when final_lr is unset
  std::optional<double> min_lr;          // default 1e-9; reduce_on_plateau 0
  std::optional<std::string> scaling;    // "percentile" (default with a ratio), "numerical" (default with final_lr)
  // step, multistep, exponential, cyclic (mode exp_range)
  std::optional<double> gamma;  // default 0.1; cyclic 1; exponential requires it
  int64_t step_size = 0;
  std::vector<int64_t> milestones;
  // cosine_annealing, cosine_warm_restarts
  int64_t t_max = 0;
  int64_t t_0 = 0;
  int64_t t_mult = 1;
  double eta_min = 0;
  // one_cycle, cyclic
  std::optional<double> max_lr;
  std::optional<double> base_lr;
  int64_t step_size_up = 2000;
  std::optional<int64_t> step_size_down;
  double pct_start = 0.3;
  std::string anneal_strategy = "cos";  // "cos", "linear"
  double div_factor = 25;
  double final_div_factor = 1e4;
  bool three_phase = false;
  bool cycle_momentum = true;
  std::optional<double> base_momentum;  // default 0.85 (one_cycle), 0.8 (cyclic)
  std::optional<double> max_momentum;   // default 0.95 (one_cycle), 0.9 (cyclic)
  std::string mode;  // cyclic: triangular (default), triangular2, exp_range; plateau: min (default), max
  // reduce_on_plateau
  double factor = 0.1;
  int64_t patience = 10;
  double threshold = 1e-4;
  std::string threshold_mode = "rel";  // "rel", "abs"
  int64_t cooldown = 0;
  double eps = 1e-8;
};

class LrSchedule {
 public:
  // INVALID_ARGUMENT names the option, what was found and what is allowed. One base lr per parameter group, at least
  // one.
  static absl::StatusOr<LrSchedule> Make(LrScheduleOptions options, std::vector<double> base_lrs);

  // For the update to come, one per group.
  const std::vector<double>& lrs() const { return lrs_; }
  // one_cycle and cyclic with cycle_momentum: the momentum (or first beta) of the update to come.
  std::optional<double> momentum() const { return momentum_; }

  // After an update (or an epoch). reduce_on_plateau: INVALID_ARGUMENT without a metric; a NaN metric counts as no
  // improvement.
  absl::Status Step(std::optional<double> metric = std::nullopt);

  bool needs_metric() const { return options_.type == "reduce_on_plateau"; }
  int64_t position() const { return position_; }                 // Step() calls so far
  const LrScheduleOptions& options() const { return options_; }  // resolved: all defaults filled in

  // "cosine from 0.01 to 1e-05 over 1000 updates, warm-up 50, cool-down 200": which curve runs, of the first group.
  std::string Text(const std::string& unit) const;

  // Position, base lrs and what reduce_on_plateau remembers. The options come from the configuration: a run resumed
  // with more steps follows the longer curve. LoadStateDict: INVALID_ARGUMENT when it is of another type or number of
  // groups; then nothing is changed.
  nlohmann::json StateDict() const;
  absl::Status LoadStateDict(const nlohmann::json& state);

 private:
  LrSchedule(LrScheduleOptions options, std::vector<double> base_lrs);
  void Refresh();
  void Plateau(double metric);

  LrScheduleOptions options_;
  std::vector<double> base_lrs_;
  int64_t position_ = 0;
  std::vector<double> lrs_;
  std::optional<double> momentum_;
  // reduce_on_plateau
  double best_ = 0;
  int64_t bad_ = 0;
  int64_t cooldown_left_ = 0;
};

}  // namespace athanor
