#include "athanor/optim/lr_schedule_check.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace athanor {
namespace {

template <class... Parts>
absl::Status Bad(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("sched.", parts...));
}

absl::Status ResolvePart(const char* name, int64_t total, int64_t divisor, std::optional<double> ratio,
                         std::optional<int64_t>* steps) {
  if (*steps && ratio) return Bad(name, "_ratio: excludes ", name, "_steps: set one of the two");
  if (ratio && (*ratio < 0 || *ratio > 1))
    return Bad(name, "_ratio: found ", *ratio, "; allowed: number >= 0 and <= 1");
  if (!*steps) *steps = ratio ? static_cast<int64_t>(*ratio * static_cast<double>(total)) : total / divisor;
  if (**steps < 0 || **steps > total) {
    return Bad(name, "_steps: found ", **steps, "; allowed: integer >= 0 and <= total_steps = ", total);
  }
  return absl::OkStatus();
}

absl::Status ResolveAnnealed(LrScheduleOptions* o) {
  if (o->total_steps <= 0) return Bad("total_steps: found ", o->total_steps, "; allowed: integer > 0");
  if (absl::Status status = ResolvePart("warmup", o->total_steps, 20, o->warmup_ratio, &o->warmup_steps); !status.ok())
    return status;
  if (absl::Status status = ResolvePart("cooldown", o->total_steps, 5, o->cooldown_ratio, &o->cooldown_steps);
      !status.ok())
    return status;
  if (*o->warmup_steps > o->total_steps - *o->cooldown_steps) {
    return Bad("cooldown_steps: found warm-up ", *o->warmup_steps, " + cool-down ", *o->cooldown_steps,
               "; allowed: at most total_steps = ", o->total_steps, " together");
  }
  if (o->final_lr && o->final_lr_ratio) return Bad("final_lr: excludes final_lr_ratio: set one of the two");
  if (o->final_lr && *o->final_lr < 0) return Bad("final_lr: found ", *o->final_lr, "; allowed: number >= 0");
  if (o->final_lr_ratio && *o->final_lr_ratio < 0)
    return Bad("final_lr_ratio: found ", *o->final_lr_ratio, "; allowed: number >= 0");
  if (*o->min_lr < 0) return Bad("min_lr: found ", *o->min_lr, "; allowed: number >= 0");
  if (!o->final_lr && !o->final_lr_ratio) o->final_lr_ratio = 1e-3;
  if (o->final_lr && o->min_lr > *o->final_lr) o->min_lr = *o->final_lr;
  if (!o->scaling) o->scaling = o->final_lr ? "numerical" : "percentile";
  if (*o->scaling != "percentile" && *o->scaling != "numerical") {
    return Bad("scaling: found \"", *o->scaling, "\"; allowed: percentile, numerical");
  }
  return absl::OkStatus();
}

absl::Status ResolveDecay(LrScheduleOptions* o) {
  if (o->type == "exponential" && !o->gamma) return Bad("gamma: missing: exponential needs it");
  if (!o->gamma) o->gamma = 0.1;
  if (*o->gamma <= 0) return Bad("gamma: found ", *o->gamma, "; allowed: number > 0");
  if (o->type == "step" && o->step_size <= 0) return Bad("step_size: found ", o->step_size, "; allowed: integer > 0");
  if (o->type != "multistep") return absl::OkStatus();
  if (o->milestones.empty()) return Bad("milestones: missing: multistep needs them");
  if (!std::is_sorted(o->milestones.begin(), o->milestones.end())) {
    return Bad("milestones: found ", absl::StrJoin(o->milestones, ", "), "; allowed: ascending");
  }
  return absl::OkStatus();
}

absl::Status ResolveCycle(LrScheduleOptions* o) {
  const bool one = o->type == "one_cycle";
  if (!o->max_lr || *o->max_lr <= 0)
    return Bad("max_lr: ", o->max_lr ? "found a number <= 0; allowed: number > 0"
                                     : absl::StrCat("missing: ", o->type, " needs it"));
  if (one) {
    if (o->total_steps <= 0) return Bad("total_steps: found ", o->total_steps, "; allowed: integer > 0");
    if (o->pct_start < 0 || o->pct_start > 1)
      return Bad("pct_start: found ", o->pct_start, "; allowed: number >= 0 and <= 1");
    if (o->anneal_strategy != "cos" && o->anneal_strategy != "linear") {
      return Bad("anneal_strategy: found \"", o->anneal_strategy, "\"; allowed: cos, linear");
    }
    if (o->div_factor <= 0 || o->final_div_factor <= 0)
      return Bad("div_factor: div_factor and final_div_factor must be > 0");
  } else {
    if (!o->base_lr || *o->base_lr < 0) return Bad("base_lr: missing or negative: cyclic needs it");
    if (o->mode.empty()) o->mode = "triangular";
    if (o->mode != "triangular" && o->mode != "triangular2" && o->mode != "exp_range") {
      return Bad("mode: found \"", o->mode, "\"; allowed: triangular, triangular2, exp_range");
    }
    if (!o->gamma) o->gamma = 1.0;
    if (!o->step_size_down) o->step_size_down = o->step_size_up;
    if (o->step_size_up <= 0 || *o->step_size_down <= 0)
      return Bad("step_size_up: step_size_up and step_size_down must be > 0");
  }
  if (!o->base_momentum) o->base_momentum = one ? 0.85 : 0.8;
  if (!o->max_momentum) o->max_momentum = one ? 0.95 : 0.9;
  return absl::OkStatus();
}

absl::Status ResolvePlateau(LrScheduleOptions* o) {
  if (o->mode.empty()) o->mode = "min";
  if (o->mode != "min" && o->mode != "max") return Bad("mode: found \"", o->mode, "\"; allowed: min, max");
  if (o->threshold_mode != "rel" && o->threshold_mode != "abs") {
    return Bad("threshold_mode: found \"", o->threshold_mode, "\"; allowed: rel, abs");
  }
  if (o->factor <= 0 || o->factor >= 1) return Bad("factor: found ", o->factor, "; allowed: number > 0 and < 1");
  if (o->patience < 0 || o->cooldown < 0) return Bad("patience: patience and cooldown must be >= 0");
  return absl::OkStatus();
}

}  // namespace

absl::Status ResolveScheduleOptions(LrScheduleOptions* o) {
  const std::string& type = o->type;
  if (!o->min_lr) o->min_lr = type == "reduce_on_plateau" ? 0.0 : 1e-9;
  if (type == "linear" || type == "cosine" || type == "constant") return ResolveAnnealed(o);
  if (type == "step" || type == "multistep" || type == "exponential") return ResolveDecay(o);
  if (type == "one_cycle" || type == "cyclic") return ResolveCycle(o);
  if (type == "reduce_on_plateau") return ResolvePlateau(o);
  if (type == "cosine_annealing") {
    return o->t_max > 0 ? absl::OkStatus() : Bad("t_max: found ", o->t_max, "; allowed: integer > 0");
  }
  if (type == "cosine_warm_restarts") {
    if (o->t_0 <= 0) return Bad("t_0: found ", o->t_0, "; allowed: integer > 0");
    return o->t_mult >= 1 ? absl::OkStatus() : Bad("t_mult: found ", o->t_mult, "; allowed: integer >= 1");
  }
  return Bad("type: found \"", type,
             "\"; allowed: linear, cosine, constant, step, multistep, exponential, cosine_annealing, "
             "cosine_warm_restarts, one_cycle, cyclic, reduce_on_plateau");
}

}  // namespace athanor
