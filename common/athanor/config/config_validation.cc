#include "athanor/config/config_validation.h"

#include "athanor/config/derived_options.h"

#include <algorithm>
#include <regex>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace athanor {
namespace {

using Problems = std::vector<FieldProblem>;

bool Contains(std::span<const absl::string_view> names, absl::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool ProblemUnder(const Problems& problems, absl::string_view section) {
  return std::any_of(problems.begin(), problems.end(), [&](const FieldProblem& problem) {
    return problem.path == section || absl::StartsWith(problem.path, absl::StrCat(section, "."));
  });
}

bool Given(const nlohmann::json& value) {
  return !value.is_null() && !(value.is_array() && value.empty()) &&
         !(value.is_string() && value.get_ref<const std::string&>().empty());
}

// Options that the section's type does not have, and options without a type.
void CheckTypeOptions(const std::string& section, const nlohmann::json& values, const std::string& type,
                      std::span<const absl::string_view> types, std::span<const absl::string_view> own,
                      std::vector<absl::string_view> common, Problems* problems) {
  for (const auto& [key, value] : values.items()) {
    if (key == "type" || !Given(value)) continue;
    if (type.empty()) {
      problems->push_back({JoinPath(section, "type"),
                           absl::StrCat("missing beside \"", key, "\"; allowed: one of ", absl::StrJoin(types, ", "))});
      return;
    }
    if (Contains(common, key) || Contains(own, key)) continue;
    std::vector<absl::string_view> allowed = common;
    allowed.insert(allowed.end(), own.begin(), own.end());
    problems->push_back(
        {JoinPath(section, key), absl::StrCat("not an option of ", type, "; allowed: ", absl::StrJoin(allowed, ", "))});
  }
}

template <class A, class B>
void CheckOneOf(const std::string& section, const char* first, const std::optional<A>& a, const char* second,
                const std::optional<B>& b, Problems* problems) {
  if (a && b)
    problems->push_back({JoinPath(section, second), absl::StrCat("excludes \"", first, "\": set one of the two")});
}

void CheckPattern(const std::string& pattern, const std::string& path, Problems* problems) {
  constexpr size_t kLongestPattern = 1000;  // the compiler of expressions recurses
  if (pattern.empty() || pattern.size() > kLongestPattern) {
    problems->push_back({path, pattern.empty()
                                   ? "missing; allowed: a regular expression"
                                   : absl::StrCat("found ", pattern.size(), " bytes; allowed: ", kLongestPattern)});
    return;
  }
  try {
    std::regex compiled(pattern);  // NOLINT(bugprone-unused-local-non-trivial-variable): only whether it can be
  } catch (const std::regex_error& error) {
    problems->push_back({path, absl::StrCat("\"", pattern, "\" is no regular expression: ", error.what())});
  }
}

void CheckKeyMapping(const RunnerConfig& config, Problems* problems) {
  for (size_t i = 0; i < config.pretrained_key_mapping.size(); ++i) {
    CheckPattern(config.pretrained_key_mapping[i].pattern, absl::StrCat("pretrained_key_mapping[", i, "].pattern"),
                 problems);
  }
}

void CheckParamGroup(const OptimConfig& optim, const ParamGroupConfig& group, const std::string& path,
                     Problems* problems) {
  const auto own = OptimOptionsOf(optim.type);
  CheckPattern(group.pattern, JoinPath(path, "pattern"), problems);
  CheckOneOf(path, "lr", group.lr, "lr_multiplier", group.lr_multiplier, problems);
  CheckOneOf(path, "weight_decay", group.weight_decay, "weight_decay_multiplier", group.weight_decay_multiplier,
             problems);
  if (group.lr_multiplier && !optim.lr) problems->push_back({JoinPath(path, "lr_multiplier"), "needs optim.lr"});
  if (group.weight_decay_multiplier && !optim.weight_decay) {
    problems->push_back({JoinPath(path, "weight_decay_multiplier"), "needs optim.weight_decay"});
  }
  const struct {
    const char* key;
    bool given;
    const char* option;
  } uses[] = {{"beta1", group.beta1.has_value(), "betas"},
              {"beta2", group.beta2.has_value(), "betas"},
              {"eps", group.eps.has_value(), "eps"},
              {"momentum", group.momentum.has_value(), "momentum"},
              {"dampening", group.dampening.has_value(), "dampening"},
              {"nesterov", group.nesterov.has_value(), "nesterov"},
              {"amsgrad", group.amsgrad.has_value(), "amsgrad"},
              {"alpha", group.alpha.has_value(), "alpha"}};
  for (const auto& use : uses) {
    if (use.given && !Contains(own, use.option)) {
      problems->push_back({JoinPath(path, use.key), absl::StrCat(optim.type, " has no ", use.option)});
    }
  }
  if (optim.type == "sgd" && group.nesterov.value_or(false)) {
    const bool fits = group.momentum.value_or(optim.momentum.value_or(0)) > 0 &&
                      group.dampening.value_or(optim.dampening.value_or(0)) == 0;
    if (!fits) problems->push_back({JoinPath(path, "nesterov"), "needs momentum > 0 and dampening = 0"});
  }
}

void CheckOptim(const OptimConfig& optim, Problems* problems) {
  const size_t before = problems->size();
  CheckTypeOptions("optim", StructToJson(optim), optim.type, OptimTypes(), OptimOptionsOf(optim.type),
                   {"lr", "weight_decay", "param_groups"}, problems);
  if (problems->size() != before) return;
  if (optim.type.empty()) {
    problems->push_back({"optim.type", absl::StrCat("missing; allowed: one of ", absl::StrJoin(OptimTypes(), ", "))});
    return;
  }
  if (!optim.betas.empty() && optim.betas.size() != 2) {
    problems->push_back({"optim.betas", absl::StrCat("found ", optim.betas.size(), " numbers; allowed: 2")});
  }
  for (const auto& [key, pair] : {std::pair{"optim.etas", &optim.etas}, {"optim.step_sizes", &optim.step_sizes}}) {
    if (!pair->empty() && pair->size() != 2)
      problems->push_back({key, absl::StrCat("found ", pair->size(), " numbers; allowed: 2")});
  }
  if (optim.type == "sgd" && optim.nesterov.value_or(false)) {
    if (optim.momentum.value_or(0) <= 0) problems->push_back({"optim.nesterov", "needs optim.momentum > 0"});
    if (optim.dampening.value_or(0) != 0) problems->push_back({"optim.nesterov", "needs optim.dampening = 0"});
  }
  for (size_t i = 0; i < optim.param_groups.size(); ++i) {
    CheckParamGroup(optim, optim.param_groups[i], absl::StrCat("optim.param_groups[", i, "]"), problems);
  }
}

void CheckRequired(const SchedConfig& sched, Problems* problems) {
  const auto need = [&](const char* type, const char* option, bool given) {
    if (sched.type == type && !given)
      problems->push_back({absl::StrCat("sched.", option), absl::StrCat("missing: ", type, " needs it")});
  };
  need("step", "step_size", sched.step_size.has_value());
  need("multistep", "milestones", !sched.milestones.empty());
  need("exponential", "gamma", sched.gamma.has_value());
  need("cosine_warm_restarts", "t_0", sched.t_0.has_value());
  need("one_cycle", "max_lr", sched.max_lr.has_value());
  need("cyclic", "base_lr", sched.base_lr.has_value());
  need("cyclic", "max_lr", sched.max_lr.has_value());
}

void CheckSchedMode(const SchedConfig& sched, Problems* problems) {
  if (!sched.mode) return;
  const bool extremum = *sched.mode == "min" || *sched.mode == "max";
  if (sched.type == "cyclic" && extremum) {
    problems->push_back({"sched.mode", absl::StrCat("found \"", *sched.mode,
                                                    "\"; allowed for cyclic: triangular, triangular2, exp_range")});
  } else if (sched.type == "reduce_on_plateau" && !extremum) {
    problems->push_back(
        {"sched.mode", absl::StrCat("found \"", *sched.mode, "\"; allowed for reduce_on_plateau: min, max")});
  }
}

void CheckSchedLength(const RunnerConfig& config, Problems* problems) {
  const SchedConfig& sched = config.sched;
  const bool per_epoch = sched.interval.value_or("step") == "epoch";
  const std::optional<int64_t> total = sched.total_steps ? sched.total_steps : per_epoch ? config.epochs : config.steps;
  if (sched.type == "one_cycle" || !Contains(SchedOptionsOf(sched.type), "total_steps")) return;
  if (!total) {
    if (per_epoch)
      problems->push_back({"sched.total_steps", "missing: an epoch schedule needs it when `epochs` is not set"});
    return;
  }
  const auto part = [&](std::optional<int64_t> steps, std::optional<double> ratio, int64_t divisor) {
    if (steps || !ratio) return steps.value_or(*total / divisor);
    // The product of 1 and the longest run is no int64 any more.
    const double share = *ratio * static_cast<double>(*total);
    return share < static_cast<double>(*total) ? static_cast<int64_t>(share) : *total;
  };
  const int64_t warmup = part(sched.warmup_steps, sched.warmup_ratio, 20);
  const int64_t cooldown = part(sched.cooldown_steps, sched.cooldown_ratio, 5);
  if (warmup > *total || cooldown > *total - warmup) {
    problems->push_back({warmup > *total ? "sched.warmup_steps" : "sched.cooldown_steps",
                         absl::StrCat("found warm-up ", warmup, " + cool-down ", cooldown, "; allowed: at most the ",
                                      *total, " steps of the schedule together")});
  }
}

void CheckSched(const RunnerConfig& config, Problems* problems) {
  const SchedConfig& sched = config.sched;
  const size_t before = problems->size();
  CheckTypeOptions("sched", StructToJson(sched), sched.type, SchedTypes(), SchedOptionsOf(sched.type), {"interval"},
                   problems);
  if (problems->size() != before || sched.type.empty()) return;
  CheckRequired(sched, problems);
  CheckSchedMode(sched, problems);
  CheckOneOf("sched", "final_lr_ratio", sched.final_lr_ratio, "final_lr", sched.final_lr, problems);
  CheckOneOf("sched", "warmup_steps", sched.warmup_steps, "warmup_ratio", sched.warmup_ratio, problems);
  CheckOneOf("sched", "cooldown_steps", sched.cooldown_steps, "cooldown_ratio", sched.cooldown_ratio, problems);
  if (sched.type == "reduce_on_plateau" && sched.interval.value_or("epoch") == "step") {
    problems->push_back({"sched.interval", "found \"step\"; allowed for reduce_on_plateau: epoch"});
  }
  if (!std::is_sorted(sched.milestones.begin(), sched.milestones.end())) {
    problems->push_back(
        {"sched.milestones", absl::StrCat("found ", absl::StrJoin(sched.milestones, ", "), "; allowed: ascending")});
  }
  if (sched.base_lr && sched.max_lr && *sched.base_lr > *sched.max_lr) {
    problems->push_back({"sched.base_lr", absl::StrCat("found ", NumberText(*sched.base_lr),
                                                       "; allowed: at most max_lr = ", NumberText(*sched.max_lr))});
  }
  if (problems->size() == before) CheckSchedLength(config, problems);
}

// Its line search evaluates the loss several times an update, so what acts between gradient and update is not for it.
void CheckLbfgs(const RunnerConfig& config, Problems* problems) {
  const struct {
    const char* path;
    bool given;
  } acts[] = {{"max_grad_norm", config.max_grad_norm.has_value()},
              {"max_grad_value", config.max_grad_value.has_value()},
              {"skip_nonfinite_grad", config.skip_nonfinite_grad},
              {"precision", config.precision == "fp16"},
              {"compile.enable", config.compile.enable || config.stack == "graph"}};
  for (const auto& act : acts) {
    if (act.given)
      problems->push_back({act.path, "not with optim.type lbfgs, which searches along unchanged gradients"});
  }
}

void CheckParallel(const RunnerConfig& config, Problems* problems) {
  const bool parallel = config.stack == "parallel";
  const std::pair<const char*, std::optional<int64_t>> model_axes[] = {
      {"context", config.parallel.axes.context},
      {"pipeline", config.parallel.axes.pipeline},
      {"tensor", config.parallel.axes.tensor},
      {"expert", config.parallel.axes.expert},
      {"expert_tensor", config.parallel.axes.expert_tensor}};
  for (const auto& [axis, degree] : model_axes) {
    if (degree.value_or(1) != 1) {
      problems->push_back({absl::StrCat("parallel.axes.", axis),
                           absl::StrCat("found ", *degree, "; allowed: 1, others are not there yet")});
    }
  }
  const auto degree = [](const std::optional<int64_t>& axis) { return axis.value_or(1); };
  const bool axes = degree(config.parallel.axes.shard) != 1 || degree(config.parallel.axes.replicate) != 1;
  if (!parallel && axes) problems->push_back({"parallel.axes", "needs \"stack\": \"parallel\""});
  if (!parallel && config.fsdp.enabled.value_or(false))
    problems->push_back({"fsdp.enabled", "needs \"stack\": \"parallel\""});
  const bool shards = parallel && config.fsdp.enabled.value_or(degree(config.parallel.axes.shard) != 1);
  if (!shards) return;
  if (config.optim.type == "lbfgs") {
    problems->push_back(
        {"optim.type", "found \"lbfgs\" with a divided model; allowed: others, its line search needs whole gradients"});
  }
  if (UsesStepGraph(config))
    problems->push_back({"compile.enable", "not with a divided model, whose parameters are gathered as they are used"});
  if (config.fsdp.mp_policy.param_dtype.has_value() && !config.precision.empty() && config.precision != "fp32") {
    problems->push_back({"fsdp.mp_policy.param_dtype",
                         absl::StrCat("found beside precision \"", config.precision, "\"; allowed: one of the two")});
  }
}

}  // namespace

void AddContradictions(const RunnerConfig& config, std::vector<FieldProblem>* problems) {
  if (!ProblemUnder(*problems, "steps") && !ProblemUnder(*problems, "epochs")) {
    if (config.steps && config.epochs) {
      problems->push_back({"epochs", absl::StrCat("found steps = ", *config.steps, " and epochs = ", *config.epochs,
                                                  "; allowed: one of the two")});
    } else if (!config.steps && !config.epochs) {
      problems->push_back({"steps", "missing: set steps or epochs"});
    }
  }
  const bool optim_was_good = !ProblemUnder(*problems, "optim") && !ProblemUnder(*problems, "optimizer");
  const bool sched_was_good = !ProblemUnder(*problems, "sched") && !ProblemUnder(*problems, "scheduler");
  if (optim_was_good) CheckOptim(config.optim, problems);
  if (sched_was_good) CheckSched(config, problems);
  if (config.fp8.enabled && config.precision != "" && config.precision != "fp8") {
    problems->push_back(
        {"precision", absl::StrCat("found \"", config.precision, "\" beside fp8.enabled; allowed: fp8")});
  }
  if (UsesStepGraph(config) && config.precision == "fp16") {
    problems->push_back({"precision", "found \"fp16\" with compile.enable; allowed: bf16, whose losses need no scale"});
  }
  if (config.optim.type == "lbfgs") CheckLbfgs(config, problems);
  if (!ProblemUnder(*problems, "parallel") && !ProblemUnder(*problems, "fsdp")) CheckParallel(config, problems);
  if (!ProblemUnder(*problems, "pretrained_key_mapping")) CheckKeyMapping(config, problems);
  for (const std::string& part : config.checkpoint.exclude_from_loading) {
    if (IsCheckpointPart(part)) continue;
    problems->push_back({"checkpoint.exclude_from_loading",
                         absl::StrCat("found \"", part, "\"; allowed: ", absl::StrJoin(kCheckpointParts, ", "))});
  }
  if (config.checkpoint.export_dtype && !config.checkpoint.last_save_model_only) {
    problems->push_back({"checkpoint.export_dtype", "needs checkpoint.last_save_model_only"});
  }
}

}  // namespace athanor
