#include "athanor/config/runner_config.h"

#include "absl/strings/string_view.h"

namespace athanor {
namespace {

struct TypeOptions {
  absl::string_view type;
  std::vector<absl::string_view> options;
};

const std::vector<TypeOptions>& OptimTable() {
  static const std::vector<TypeOptions> table = {
      {"sgd", {"momentum", "dampening", "nesterov"}},
      {"adam", {"betas", "eps", "amsgrad"}},
      {"adamw", {"betas", "eps", "amsgrad"}},
      {"adagrad", {"eps", "lr_decay", "initial_accumulator_value"}},
      {"nadam", {"betas", "eps", "momentum_decay", "decoupled_weight_decay"}},
      {"radam", {"betas", "eps", "decoupled_weight_decay"}},
      {"rmsprop", {"alpha", "eps", "momentum", "centered"}},
      {"adadelta", {"rho", "eps"}},
      {"adamax", {"betas", "eps"}},
      {"asgd", {"lambd", "alpha", "t0"}},
      {"rprop", {"etas", "step_sizes"}},
      {"lbfgs", {"max_iter", "max_eval", "tolerance_grad", "tolerance_change", "history_size", "line_search_fn"}},
      {"adafactor", {"beta2_decay", "eps", "eps1", "clip_threshold"}},
      {"lion", {"betas"}},
      {"muon", {"momentum", "nesterov", "eps", "ns_steps"}},
  };
  return table;
}

const std::vector<TypeOptions>& SchedTable() {
  static const std::vector<absl::string_view> annealed = {"total_steps",    "warmup_steps",   "warmup_ratio",
                                                          "cooldown_steps", "cooldown_ratio", "final_lr",
                                                          "final_lr_ratio", "min_lr",         "scaling"};
  static const std::vector<TypeOptions> table = {
      {"linear", annealed},
      {"cosine", annealed},
      {"constant", annealed},
      {"step", {"step_size", "gamma"}},
      {"multistep", {"milestones", "gamma"}},
      {"exponential", {"gamma"}},
      {"cosine_annealing", {"t_max", "eta_min"}},
      {"cosine_warm_restarts", {"t_0", "t_mult", "eta_min"}},
      {"one_cycle",
       {"max_lr", "total_steps", "pct_start", "anneal_strategy", "div_factor", "final_div_factor", "three_phase",
        "cycle_momentum", "base_momentum", "max_momentum"}},
      {"cyclic",
       {"base_lr", "max_lr", "step_size_up", "step_size_down", "mode", "gamma", "cycle_momentum", "base_momentum",
        "max_momentum"}},
      {"reduce_on_plateau",
       {"monitor", "mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps"}},
  };
  return table;
}

std::vector<absl::string_view> TypesOf(const std::vector<TypeOptions>& table) {
  std::vector<absl::string_view> types;
  types.reserve(table.size());
  for (const TypeOptions& row : table) types.push_back(row.type);
  return types;
}

std::span<const absl::string_view> OptionsOf(const std::vector<TypeOptions>& table, absl::string_view type) {
  for (const TypeOptions& row : table) {
    if (row.type == type) return row.options;
  }
  return {};
}

}  // namespace

std::span<const absl::string_view> OptimTypes() {
  static const std::vector<absl::string_view> types = TypesOf(OptimTable());
  return types;
}

std::span<const absl::string_view> SchedTypes() {
  static const std::vector<absl::string_view> types = TypesOf(SchedTable());
  return types;
}

std::span<const absl::string_view> OptimOptionsOf(absl::string_view type) {
  return OptionsOf(OptimTable(), type);
}
std::span<const absl::string_view> SchedOptionsOf(absl::string_view type) {
  return OptionsOf(SchedTable(), type);
}

DataLoaderConfig DataLoaderConfig::For(const std::string& split) const {
  DataLoaderConfig result = *this;
  result.splits.clear();
  const auto found = splits.find(split);
  if (found == splits.end()) return result;
  const SplitLoaderConfig& own = found->second;
  if (own.batch_size) result.batch_size = *own.batch_size;
  if (own.shuffle) result.shuffle = own.shuffle;
  if (own.drop_last) result.drop_last = *own.drop_last;
  if (own.num_workers) result.num_workers = *own.num_workers;
  if (own.prefetch_factor) result.prefetch_factor = *own.prefetch_factor;
  if (own.in_order) result.in_order = *own.in_order;
  if (own.persistent_workers) result.persistent_workers = *own.persistent_workers;
  if (own.snapshot_every_n_steps) result.snapshot_every_n_steps = *own.snapshot_every_n_steps;
  if (own.pin_memory) result.pin_memory = own.pin_memory;
  if (own.timeout) result.timeout = *own.timeout;
  if (own.on_damage) result.on_damage = *own.on_damage;
  if (own.max_damaged) result.max_damaged = *own.max_damaged;
  return result;
}

}  // namespace athanor
