// From the configuration to an optimizer: defaults of each type, parameter groups.
#include <regex>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/config/config_loader.h"
#include "athanor/optim/kinds/optimizer_kinds.h"

namespace athanor {
namespace {

OptimGroupOptions DefaultsOf(const std::string& type) {
  OptimGroupOptions o;
  o.lr = 1e-3;
  if (type == "adamw") o.weight_decay = 1e-2;
  if (type == "adagrad") {
    o.lr = 1e-2;
    o.eps = 1e-10;
  }
  if (type == "adadelta") {
    o.lr = 1;
    o.eps = 1e-6;
  }
  if (type == "asgd") {
    o.lr = 1e-2;
    o.alpha = 0.75;
  }
  if (type == "rprop") o.lr = 1e-2;
  if (type == "lbfgs") o.lr = 1;
  if (type == "adafactor") {
    o.lr = 1e-2;
    o.eps = 1e-3;
  }
  if (type == "nadam" || type == "adamax") o.lr = 2e-3;
  if (type == "rmsprop") o.lr = 1e-2;
  if (type == "lion") {
    o.lr = 1e-4;
    o.beta2 = 0.99;
  }
  if (type == "muon") {
    o.weight_decay = 0.1;
    o.momentum = 0.95;
    o.nesterov = true;
    o.eps = 1e-7;
  }
  return o;
}

OptimGroupOptions Resolve(const OptimConfig& config) {
  OptimGroupOptions o = DefaultsOf(config.type);
  o.lr = config.lr.value_or(o.lr);
  o.weight_decay = config.weight_decay.value_or(o.weight_decay);
  if (config.betas.size() == 2) {
    o.beta1 = config.betas[0];
    o.beta2 = config.betas[1];
  }
  o.eps = config.eps.value_or(o.eps);
  o.momentum = config.momentum.value_or(o.momentum);
  o.dampening = config.dampening.value_or(o.dampening);
  o.nesterov = config.nesterov.value_or(o.nesterov);
  o.amsgrad = config.amsgrad.value_or(o.amsgrad);
  o.alpha = config.alpha.value_or(o.alpha);
  o.centered = config.centered.value_or(o.centered);
  o.lr_decay = config.lr_decay.value_or(o.lr_decay);
  o.initial_accumulator_value = config.initial_accumulator_value.value_or(o.initial_accumulator_value);
  o.momentum_decay = config.momentum_decay.value_or(o.momentum_decay);
  o.decoupled_weight_decay = config.decoupled_weight_decay.value_or(o.decoupled_weight_decay);
  o.ns_steps = config.ns_steps.value_or(o.ns_steps);
  o.rho = config.rho.value_or(o.rho);
  o.lambd = config.lambd.value_or(o.lambd);
  o.t0 = config.t0.value_or(o.t0);
  if (config.etas.size() == 2) {
    o.eta_minus = config.etas[0];
    o.eta_plus = config.etas[1];
  }
  o.beta2_decay = config.beta2_decay.value_or(o.beta2_decay);
  o.eps1 = config.eps1.value_or(o.eps1);
  o.clip_threshold = config.clip_threshold.value_or(o.clip_threshold);
  if (config.step_sizes.size() == 2) {
    o.step_min = config.step_sizes[0];
    o.step_max = config.step_sizes[1];
  }
  return o;
}

OptimGroupOptions Resolve(const OptimGroupOptions& base, const ParamGroupConfig& group) {
  OptimGroupOptions o = base;
  o.lr = group.lr.value_or(base.lr * group.lr_multiplier.value_or(1));
  o.weight_decay = group.weight_decay.value_or(base.weight_decay * group.weight_decay_multiplier.value_or(1));
  o.beta1 = group.beta1.value_or(base.beta1);
  o.beta2 = group.beta2.value_or(base.beta2);
  o.eps = group.eps.value_or(base.eps);
  o.momentum = group.momentum.value_or(base.momentum);
  o.dampening = group.dampening.value_or(base.dampening);
  o.nesterov = group.nesterov.value_or(base.nesterov);
  o.amsgrad = group.amsgrad.value_or(base.amsgrad);
  o.alpha = group.alpha.value_or(base.alpha);
  return o;
}

// The mistakes of the `optim` section alone; the rest of the configuration is not known here.
absl::Status CheckOptimConfig(const OptimConfig& config) {
  if (config.type.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("optim.type: missing; allowed: one of ", absl::StrJoin(OptimTypes(), ", ")));
  }
  if ((config.type == "rprop" || config.type == "lbfgs") && config.weight_decay)
    return absl::InvalidArgumentError(absl::StrCat("optim.weight_decay: ", config.type, " has none"));
  if (config.type == "lbfgs" && !config.param_groups.empty())
    return absl::InvalidArgumentError("optim.param_groups: lbfgs has one group for all parameters");
  RunnerConfig whole;
  whole.steps = 1;
  whole.optim = config;
  return ToStatus(CheckRunnerConfig(whole));
}

absl::Status CheckTensor(const std::string& name, const torch::Tensor& tensor) {
  if (!tensor.is_non_overlapping_and_dense()) {
    return absl::InvalidArgumentError(
        absl::StrCat("parameter ", name, ": its memory has gaps or overlaps; allowed: dense tensors"));
  }
  if (!tensor.is_floating_point()) {
    return absl::InvalidArgumentError(
        absl::StrCat("parameter ", name, ": found ", c10::toString(tensor.scalar_type()), "; allowed: floating point"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Optimizer>> MakeOptimizer(const OptimConfig& config, const NamedTensors& parameters) {
  if (absl::Status status = CheckOptimConfig(config); !status.ok()) return status;
  std::unique_ptr<Optimizer> optimizer = MakeFusedOptimizer(config.type);
  if (optimizer == nullptr) optimizer = MakeForeachOptimizer(config.type);
  if (optimizer == nullptr) optimizer = MakeClassicOptimizer(config.type);
  if (optimizer == nullptr && config.type == "adafactor") optimizer = MakeAdafactor();
  if (optimizer == nullptr && config.type == "lbfgs") optimizer = MakeLbfgs(config);
  if (optimizer == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("optim.type: found \"", config.type, "\"; allowed: one of ", absl::StrJoin(OptimTypes(), ", ")));
  }
  const OptimGroupOptions base = Resolve(config);
  std::vector<std::regex> patterns;
  std::vector<Optimizer::Group> groups;
  for (const ParamGroupConfig& group : config.param_groups) {
    patterns.emplace_back(group.pattern);
    groups.push_back({Resolve(base, group), {}});
  }
  groups.push_back({base, {}});
  std::set<const c10::TensorImpl*> seen;
  for (const auto& [name, tensor] : parameters) {
    if (!tensor.defined() || !tensor.requires_grad() || !seen.insert(tensor.unsafeGetTensorImpl()).second) continue;
    if (absl::Status status = CheckTensor(name, tensor); !status.ok()) return status;
    size_t group = 0;
    while (group < patterns.size() && !std::regex_search(name, patterns[group])) ++group;
    groups[group].parameters.push_back({.name = name, .tensor = tensor});
  }
  for (size_t i = 0; i < groups.size(); ++i) {
    if (groups[i].parameters.empty()) {
      if (i < patterns.size()) {
        optimizer->notes_.push_back(
            absl::StrCat("optim.param_groups[", i, "].pattern \"", config.param_groups[i].pattern,
                         "\" takes no parameter: none matches that an earlier pattern has not taken"));
      }
      continue;
    }
    for (const Optimizer::Parameter& parameter : groups[i].parameters)
      optimizer->parameters_.push_back(parameter.tensor);
    optimizer->groups_.push_back(std::move(groups[i]));
  }
  if (optimizer->groups_.empty())
    return absl::InvalidArgumentError("the model has no parameter that needs a gradient: nothing to train");
  return optimizer;
}

}  // namespace athanor
