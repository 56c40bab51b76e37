// A schedule bound to an optimizer.
//
//   ASSIGN_OR_RETURN(auto scheduler, LrScheduler::Make(config.sched, {.steps = 1000, .epochs = 10}, optimizer.get()));
//   optimizer->Step();  RETURN_IF_ERROR(scheduler->Step());              // interval kStep; not after a skipped update
//   RETURN_IF_ERROR(scheduler->Step(result["val"]["loss"]));             // interval kEpoch, metric schedules
//
// Not thread-safe; the optimizer must outlive it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/config/runner_config.h"
#include "athanor/optim/lr_schedule.h"
#include "athanor/optim/optimizer.h"

namespace athanor {

enum class SchedInterval { kStep, kEpoch };

struct ScheduleBudget {  // what the run will do; 0 = unknown
  int64_t steps = 0;
  int64_t epochs = 0;
};

class LrScheduler {
 public:
  // Null when config.type is empty. `total_steps`, when the config leaves it out, is the budget in the schedule's
  // interval, and so is `t_max` of cosine_annealing. Writes the first learning rates into the optimizer, whose present
  // ones are the base. INVALID_ARGUMENT names the option.
  static absl::StatusOr<std::unique_ptr<LrScheduler>> Make(const SchedConfig& config, ScheduleBudget budget,
                                                           Optimizer* optimizer);

  // Advances by one and writes the learning rates.
  absl::Status Step(std::optional<double> metric = std::nullopt);

  SchedInterval interval() const { return interval_; }  // metric schedules: kEpoch
  bool needs_metric() const { return schedule_.needs_metric(); }
  // "val.loss", "loss" or empty (then the score's): the metric to pass to Step().
  const std::string& monitor() const { return monitor_; }
  const LrSchedule& schedule() const { return schedule_; }
  std::string Text() const;  // of the schedule, in the units of its interval

  // LoadStateDict also writes the learning rates of the restored position, so the order of loading against the
  // optimizer's state is free.
  nlohmann::json StateDict() const { return schedule_.StateDict(); }
  absl::Status LoadStateDict(const nlohmann::json& state);

 private:
  LrScheduler(LrSchedule schedule, SchedInterval interval, std::string monitor, Optimizer* optimizer);
  void Apply();

  LrSchedule schedule_;
  SchedInterval interval_;
  std::string monitor_;
  Optimizer* optimizer_;
};

}  // namespace athanor
