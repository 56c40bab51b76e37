#include "athanor/optim/lr_scheduler.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

template <class T, class U>
void Take(const std::optional<T>& from, U* to) {
  if (from) *to = *from;
}

LrScheduleOptions OptionsOf(const SchedConfig& config) {
  LrScheduleOptions o;
  o.type = absl::StrReplaceAll(absl::AsciiStrToLower(config.type), {{"-", "_"}});  // as configurations may spell it
  Take(config.total_steps, &o.total_steps);
  o.warmup_steps = config.warmup_steps;
  o.warmup_ratio = config.warmup_ratio;
  o.cooldown_steps = config.cooldown_steps;
  o.cooldown_ratio = config.cooldown_ratio;
  o.final_lr = config.final_lr;
  o.final_lr_ratio = config.final_lr_ratio;
  o.min_lr = config.min_lr;
  o.scaling = config.scaling;
  o.gamma = config.gamma;
  Take(config.step_size, &o.step_size);
  o.milestones = config.milestones;
  Take(config.t_max, &o.t_max);
  Take(config.t_0, &o.t_0);
  Take(config.t_mult, &o.t_mult);
  Take(config.eta_min, &o.eta_min);
  o.max_lr = config.max_lr;
  o.base_lr = config.base_lr;
  Take(config.step_size_up, &o.step_size_up);
  o.step_size_down = config.step_size_down;
  Take(config.pct_start, &o.pct_start);
  Take(config.anneal_strategy, &o.anneal_strategy);
  Take(config.div_factor, &o.div_factor);
  Take(config.final_div_factor, &o.final_div_factor);
  Take(config.three_phase, &o.three_phase);
  Take(config.cycle_momentum, &o.cycle_momentum);
  o.base_momentum = config.base_momentum;
  o.max_momentum = config.max_momentum;
  Take(config.mode, &o.mode);
  Take(config.factor, &o.factor);
  Take(config.patience, &o.patience);
  Take(config.threshold, &o.threshold);
  Take(config.threshold_mode, &o.threshold_mode);
  Take(config.cooldown, &o.cooldown);
  Take(config.eps, &o.eps);
  return o;
}

}  // namespace

LrScheduler::LrScheduler(LrSchedule schedule, SchedInterval interval, std::string monitor, Optimizer* optimizer)
    : schedule_(std::move(schedule)), interval_(interval), monitor_(std::move(monitor)), optimizer_(optimizer) {
  Apply();
}

absl::StatusOr<std::unique_ptr<LrScheduler>> LrScheduler::Make(const SchedConfig& config, ScheduleBudget budget,
                                                               Optimizer* optimizer) {
  if (config.type.empty()) return std::unique_ptr<LrScheduler>();
  LrScheduleOptions options = OptionsOf(config);
  const bool metric = options.type == "reduce_on_plateau";
  const std::string interval = config.interval.value_or(metric ? "epoch" : "step");
  if (interval != "step" && interval != "epoch") {
    return absl::InvalidArgumentError(absl::StrCat("sched.interval: found \"", interval, "\"; allowed: step, epoch"));
  }
  if (metric && interval == "step") {
    return absl::InvalidArgumentError("sched.interval: found \"step\"; allowed for reduce_on_plateau: epoch");
  }
  if (options.total_steps == 0) options.total_steps = interval == "epoch" ? budget.epochs : budget.steps;
  if (options.type == "cosine_annealing" && options.t_max == 0) options.t_max = options.total_steps;
  std::vector<double> base_lrs;
  for (size_t i = 0; i < optimizer->group_count(); ++i) base_lrs.push_back(optimizer->lr(i));
  ASSIGN_OR_RETURN(LrSchedule schedule, LrSchedule::Make(std::move(options), std::move(base_lrs)));
  return std::unique_ptr<LrScheduler>(
      new LrScheduler(std::move(schedule), interval == "epoch" ? SchedInterval::kEpoch : SchedInterval::kStep,
                      config.monitor.value_or(""), optimizer));
}

std::string LrScheduler::Text() const {
  return schedule_.Text(interval_ == SchedInterval::kEpoch ? "epochs" : "updates");
}

void LrScheduler::Apply() {
  for (size_t i = 0; i < schedule_.lrs().size(); ++i) {
    optimizer_->SetLr(i, schedule_.lrs()[i]);
    if (schedule_.momentum()) optimizer_->SetMomentum(i, *schedule_.momentum());
  }
}

absl::Status LrScheduler::Step(std::optional<double> metric) {
  RETURN_IF_ERROR(schedule_.Step(metric));
  Apply();
  return absl::OkStatus();
}

absl::Status LrScheduler::LoadStateDict(const nlohmann::json& state) {
  RETURN_IF_ERROR(schedule_.LoadStateDict(state));
  Apply();
  return absl::OkStatus();
}

}  // namespace athanor
