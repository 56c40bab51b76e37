#include "athanor/optim/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/optim/lr_schedule_check.h"

namespace athanor {
namespace {

using std::numbers::pi;

double Annealed(const LrScheduleOptions& o, int64_t position, double base) {
  const double total = static_cast<double>(o.total_steps);
  const double s = static_cast<double>(position + 1);
  const double progress = std::min(std::max(s / total, 0.0), 1.0);
  double ratio = 0;
  if (o.type == "linear") ratio = progress;
  if (o.type == "cosine") ratio = 1 - (1 + std::cos(pi * progress)) / 2;
  const double final_lr = o.final_lr ? *o.final_lr : base * *o.final_lr_ratio;
  double lr =
      *o.scaling == "percentile" ? std::pow(final_lr / base, ratio) * base : (1 - ratio) * (base - final_lr) + final_lr;
  const double warmup = static_cast<double>(*o.warmup_steps), cooldown = static_cast<double>(*o.cooldown_steps);
  if (s < warmup) {
    lr = s / warmup * (lr - *o.min_lr) + *o.min_lr;
  } else if (cooldown > 0 && s > total - cooldown) {
    lr = (1 - (s - (total - cooldown)) / cooldown) * (lr - *o.min_lr) + *o.min_lr;
  }
  return std::max(*o.min_lr, lr);
}

double WarmRestarts(const LrScheduleOptions& o, int64_t position, double base) {
  int64_t period = o.t_0, within = position;
  while (within >= period) {
    within -= period;
    if (o.t_mult == 1) {
      within %= period;
      break;
    }
    if (period > std::numeric_limits<int64_t>::max() / o.t_mult) break;
    period *= o.t_mult;
  }
  return o.eta_min +
         (base - o.eta_min) * (1 + std::cos(pi * static_cast<double>(within) / static_cast<double>(period))) / 2;
}

double Anneal(const LrScheduleOptions& o, double from, double to, double share) {
  if (o.anneal_strategy == "linear") return (to - from) * share + from;
  return to + (from - to) / 2 * (1 + std::cos(pi * share));
}

struct OneCycleValue {
  double lr, momentum;
};

OneCycleValue OneCycle(const LrScheduleOptions& o, int64_t position) {
  const double max_lr = *o.max_lr, first = max_lr / o.div_factor, last = first / o.final_div_factor;
  const double low = *o.base_momentum, high = *o.max_momentum;
  const double total = static_cast<double>(o.total_steps);
  struct Phase {
    double end, lr_from, lr_to, momentum_from, momentum_to;
  };
  std::vector<Phase> phases = {{o.pct_start * total - 1, first, max_lr, high, low}};
  if (o.three_phase) {
    phases.push_back({2 * o.pct_start * total - 2, max_lr, first, low, high});
    phases.push_back({total - 1, first, last, high, high});
  } else {
    phases.push_back({total - 1, max_lr, last, low, high});
  }
  // The value at `total`, which no update sees, follows PyTorch (the curve turns up again); beyond it the end holds.
  const double at = position <= o.total_steps ? static_cast<double>(position) : total - 1;
  double begin = 0;
  for (size_t i = 0; i < phases.size(); ++i) {
    const Phase& phase = phases[i];
    if (at <= phase.end || i + 1 == phases.size()) {
      const double share = phase.end == begin ? 1.0 : (at - begin) / (phase.end - begin);
      return {Anneal(o, phase.lr_from, phase.lr_to, share), Anneal(o, phase.momentum_from, phase.momentum_to, share)};
    }
    begin = phase.end;
  }
  return {last, high};
}

OneCycleValue Cyclic(const LrScheduleOptions& o, int64_t position) {
  const double up = static_cast<double>(o.step_size_up), length = up + static_cast<double>(*o.step_size_down);
  const double at = static_cast<double>(position);
  const double cycle = std::floor(1 + at / length);
  const double x = 1 + at / length - cycle, rise = up / length;
  const double share = x <= rise ? x / rise : (x - 1) / (rise - 1);
  double scale = 1;
  if (o.mode == "triangular2") scale = 1 / std::pow(2.0, cycle - 1);
  if (o.mode == "exp_range") scale = std::pow(*o.gamma, at);
  return {*o.base_lr + (*o.max_lr - *o.base_lr) * share * scale,
          *o.max_momentum - (*o.max_momentum - *o.base_momentum) * share * scale};
}

double Framework(const LrScheduleOptions& o, int64_t position, double base) {
  if (o.type == "step") return base * std::pow(*o.gamma, static_cast<double>(position / o.step_size));
  if (o.type == "exponential") return base * std::pow(*o.gamma, static_cast<double>(position));
  if (o.type == "multistep") {
    const auto passed = std::upper_bound(o.milestones.begin(), o.milestones.end(), position) - o.milestones.begin();
    return base * std::pow(*o.gamma, static_cast<double>(passed));
  }
  if (o.type == "cosine_annealing") {
    return o.eta_min +
           (base - o.eta_min) * (1 + std::cos(pi * static_cast<double>(position) / static_cast<double>(o.t_max))) / 2;
  }
  return WarmRestarts(o, position, base);
}

}  // namespace

LrSchedule::LrSchedule(LrScheduleOptions options, std::vector<double> base_lrs)
    : options_(std::move(options)), base_lrs_(std::move(base_lrs)), lrs_(base_lrs_) {
  best_ = options_.mode == "max" ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
  Refresh();
}

absl::StatusOr<LrSchedule> LrSchedule::Make(LrScheduleOptions options, std::vector<double> base_lrs) {
  if (base_lrs.empty()) return absl::InvalidArgumentError("a schedule needs at least one base learning rate");
  for (double lr : base_lrs) {
    if (!std::isfinite(lr) || lr < 0)
      return absl::InvalidArgumentError(absl::StrCat("base learning rate: found ", lr, "; allowed: number >= 0"));
  }
  if (absl::Status status = ResolveScheduleOptions(&options); !status.ok()) return status;
  return LrSchedule(std::move(options), std::move(base_lrs));
}

void LrSchedule::Refresh() {
  if (needs_metric()) return;  // lrs_ is the state
  const bool annealed = options_.type == "linear" || options_.type == "cosine" || options_.type == "constant";
  for (size_t i = 0; i < base_lrs_.size(); ++i) {
    if (annealed) {
      // 0 / 0 in the power: a group that does not learn stays so.
      lrs_[i] = base_lrs_[i] == 0 && !options_.final_lr ? 0 : Annealed(options_, position_, base_lrs_[i]);
    } else if (options_.type == "one_cycle" || options_.type == "cyclic") {
      const OneCycleValue value =
          options_.type == "cyclic" ? Cyclic(options_, position_) : OneCycle(options_, position_);
      lrs_[i] = value.lr;
      if (options_.cycle_momentum) momentum_ = value.momentum;
    } else {
      lrs_[i] = Framework(options_, position_, base_lrs_[i]);
    }
  }
}

void LrSchedule::Plateau(double metric) {
  const double margin = options_.threshold;
  const bool smaller = options_.mode == "min";
  bool better = false;
  if (options_.threshold_mode == "rel") {
    better = smaller ? metric < best_ * (1 - margin) : metric > best_ * (1 + margin);
  } else {
    better = smaller ? metric < best_ - margin : metric > best_ + margin;
  }
  if (better) {
    best_ = metric;
    bad_ = 0;
  } else {
    ++bad_;
  }
  if (cooldown_left_ > 0) {
    --cooldown_left_;
    bad_ = 0;
  }
  if (bad_ <= options_.patience) return;
  for (double& lr : lrs_) {
    const double reduced = std::max(lr * options_.factor, *options_.min_lr);
    if (lr - reduced > options_.eps) lr = reduced;
  }
  cooldown_left_ = options_.cooldown;
  bad_ = 0;
}

absl::Status LrSchedule::Step(std::optional<double> metric) {
  if (needs_metric()) {
    if (!metric) return absl::InvalidArgumentError("reduce_on_plateau needs a metric to step");
    Plateau(*metric);
  }
  ++position_;
  Refresh();
  return absl::OkStatus();
}

nlohmann::json LrSchedule::StateDict() const {
  nlohmann::json state = {{"type", options_.type}, {"position", position_}, {"base_lrs", base_lrs_}};
  if (needs_metric()) {
    state["lrs"] = lrs_;
    state["best"] = std::isfinite(best_) ? nlohmann::json(best_) : nlohmann::json(nullptr);  // JSON has no infinity
    state["bad"] = bad_;
    state["cooldown_left"] = cooldown_left_;
  }
  return state;
}

absl::Status LrSchedule::LoadStateDict(const nlohmann::json& state) {
  try {
    const std::string type = state.at("type").get<std::string>();
    if (type != options_.type) {
      return absl::InvalidArgumentError(
          absl::StrCat("schedule state: found type ", type, "; allowed: ", options_.type));
    }
    const auto base_lrs = state.at("base_lrs").get<std::vector<double>>();
    if (base_lrs.size() != base_lrs_.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("schedule state: found ", base_lrs.size(), " parameter groups; allowed: ", base_lrs_.size()));
    }
    LrSchedule restored(options_, base_lrs);
    restored.position_ = state.at("position").get<int64_t>();
    if (restored.position_ < 0) return absl::InvalidArgumentError("schedule state: negative position");
    if (needs_metric()) {
      restored.lrs_ = state.at("lrs").get<std::vector<double>>();
      if (restored.lrs_.size() != base_lrs.size())
        return absl::InvalidArgumentError("schedule state: lrs and base_lrs differ in length");
      if (!state.at("best").is_null()) restored.best_ = state.at("best").get<double>();
      restored.bad_ = state.at("bad").get<int64_t>();
      restored.cooldown_left_ = state.at("cooldown_left").get<int64_t>();
    }
    restored.Refresh();
    *this = std::move(restored);
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("schedule state is damaged: ", error.what()));
  }
  return absl::OkStatus();
}

std::string LrSchedule::Text(const std::string& unit) const {
  const LrScheduleOptions& o = options_;
  const double base = base_lrs_.front();
  if (o.type == "linear" || o.type == "cosine" || o.type == "constant") {
    const double final_lr = o.type == "constant" ? base : o.final_lr ? *o.final_lr : base * *o.final_lr_ratio;
    return absl::StrCat(o.type, " from ", base, " to ", final_lr, " (", *o.scaling, ") over ", o.total_steps, " ", unit,
                        ", of them warm-up ", *o.warmup_steps, ", cool-down ", *o.cooldown_steps, " to ", *o.min_lr);
  }
  if (o.type == "cosine_annealing")
    return absl::StrCat(o.type, " from ", base, " to ", o.eta_min, " over ", o.t_max, " ", unit);
  if (o.type == "cosine_warm_restarts")
    return absl::StrCat(o.type, " from ", base, " to ", o.eta_min, ", first over ", o.t_0, " ", unit, ", then times ",
                        o.t_mult);
  if (o.type == "one_cycle")
    return absl::StrCat(o.type, " to ", *o.max_lr, " and down over ", o.total_steps, " ", unit);
  if (o.type == "cyclic")
    return absl::StrCat(o.type, " (", o.mode, ") between ", *o.base_lr, " and ", *o.max_lr, ", up in ", o.step_size_up,
                        " ", unit);
  if (o.type == "reduce_on_plateau")
    return absl::StrCat(o.type, " from ", base, ", times ", o.factor, " after ", o.patience, " ", unit,
                        " without gain");
  const std::string when = o.type == "step"        ? absl::StrCat(" every ", o.step_size, " ", unit)
                           : o.type == "multistep" ? absl::StrCat(" at ", absl::StrJoin(o.milestones, ", "), " ", unit)
                                                   : absl::StrCat(" each of the ", unit);
  return absl::StrCat(o.type, " from ", base, ", times ", *o.gamma, when);
}

}  // namespace athanor
