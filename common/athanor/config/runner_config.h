// Every option of a training run. docs/configuration.md is generated from these structs and their rules
// (runner_config_rules.cc).
//
//   RunnerConfig config;
//   std::vector<FieldProblem> problems = CheckRunnerConfig(json, &config);   // config_loader.h
//
// A plain value: copy it, compare it. Unset std::optional = the default that the rule's text names. Durations are
// seconds.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "athanor/config/reflection.h"

namespace athanor {

// Overrides for the parameters whose name matches.
struct ParamGroupConfig {
  std::string pattern;
  std::optional<double> lr;
  std::optional<double> lr_multiplier;
  std::optional<double> weight_decay;
  std::optional<double> weight_decay_multiplier;
  std::optional<double> beta1;
  std::optional<double> beta2;
  std::optional<double> eps;
  std::optional<double> momentum;
  std::optional<double> dampening;
  std::optional<bool> nesterov;
  std::optional<bool> amsgrad;
  std::optional<double> alpha;
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(ParamGroupConfig, (),
                      (pattern, lr, lr_multiplier, weight_decay, weight_decay_multiplier, beta1, beta2, eps, momentum,
                       dampening, nesterov, amsgrad, alpha))

// Which options a type takes: OptimOptionsOf(). An option of another type is a mistake, not ignored.
struct OptimConfig {
  std::string type;  // canonical name, "" = none
  std::optional<double> lr;
  std::optional<double> weight_decay;
  std::vector<double> betas;  // empty or two
  std::optional<double> eps;
  std::optional<double> momentum;
  std::optional<double> dampening;
  std::optional<bool> nesterov;
  std::optional<bool> amsgrad;
  std::optional<double> alpha;
  std::optional<bool> centered;
  std::optional<double> lr_decay;
  std::optional<double> initial_accumulator_value;
  std::optional<double> momentum_decay;
  std::optional<bool> decoupled_weight_decay;
  std::optional<int64_t> ns_steps;
  std::optional<double> rho;
  std::optional<double> lambd;
  std::optional<double> t0;
  std::vector<double> etas;        // empty or two
  std::vector<double> step_sizes;  // empty or two
  std::optional<int64_t> max_iter;
  std::optional<int64_t> max_eval;
  std::optional<double> tolerance_grad;
  std::optional<double> tolerance_change;
  std::optional<int64_t> history_size;
  std::optional<std::string> line_search_fn;
  std::optional<double> beta2_decay;
  std::optional<double> eps1;
  std::optional<double> clip_threshold;
  std::vector<ParamGroupConfig> param_groups;
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(OptimConfig, (),
                      (type, lr, weight_decay, betas, eps, momentum, dampening, nesterov, amsgrad, alpha, centered,
                       lr_decay, initial_accumulator_value, momentum_decay, decoupled_weight_decay, ns_steps, rho,
                       lambd, t0, etas, step_sizes, max_iter, max_eval, tolerance_grad, tolerance_change, history_size,
                       line_search_fn, beta2_decay, eps1, clip_threshold, param_groups))

// Which options a type takes: SchedOptionsOf().
struct SchedConfig {
  std::string type;                     // canonical name, "" = constant learning rate, no schedule
  std::optional<std::string> interval;  // "step", "epoch"
  std::optional<std::string> monitor;
  std::optional<int64_t> total_steps;
  // linear, cosine, constant
  std::optional<int64_t> warmup_steps;
  std::optional<double> warmup_ratio;
  std::optional<int64_t> cooldown_steps;
  std::optional<double> cooldown_ratio;
  std::optional<double> final_lr;
  std::optional<double> final_lr_ratio;
  std::optional<double> min_lr;
  std::optional<std::string> scaling;
  // step, multistep, exponential, cyclic
  std::optional<double> gamma;
  std::optional<int64_t> step_size;
  std::vector<int64_t> milestones;
  // cosine_annealing, cosine_warm_restarts
  std::optional<int64_t> t_max;
  std::optional<int64_t> t_0;
  std::optional<int64_t> t_mult;
  std::optional<double> eta_min;
  // one_cycle, cyclic
  std::optional<double> max_lr;
  std::optional<double> base_lr;
  std::optional<int64_t> step_size_up;
  std::optional<int64_t> step_size_down;
  std::optional<double> pct_start;
  std::optional<std::string> anneal_strategy;
  std::optional<double> div_factor;
  std::optional<double> final_div_factor;
  std::optional<bool> three_phase;
  std::optional<bool> cycle_momentum;
  std::optional<double> base_momentum;
  std::optional<double> max_momentum;
  std::optional<std::string> mode;
  // reduce_on_plateau
  std::optional<double> factor;
  std::optional<int64_t> patience;
  std::optional<double> threshold;
  std::optional<std::string> threshold_mode;
  std::optional<int64_t> cooldown;
  std::optional<double> eps;
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(SchedConfig, (),
                      (type, interval, monitor, total_steps, warmup_steps, warmup_ratio, cooldown_steps, cooldown_ratio,
                       final_lr, final_lr_ratio, min_lr, scaling, gamma, step_size, milestones, t_max, t_0, t_mult,
                       eta_min, max_lr, base_lr, step_size_up, step_size_down, pct_start, anneal_strategy, div_factor,
                       final_div_factor, three_phase, cycle_momentum, base_momentum, max_momentum, mode, factor,
                       patience, threshold, threshold_mode, cooldown, eps))

struct ScoreConfig {
  std::optional<std::string> split;
  std::string name = "loss";
  std::string direction = "auto";  // "min", "max", "auto"
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(ScoreConfig, (), (split, name, direction))

struct EvaluateConfig {
  int64_t interval = 0;
  std::vector<std::string> splits;
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(EvaluateConfig, (), (interval, splits))

struct CheckpointConfig {
  std::string dir_name = "checkpoints";
  std::string backend = "auto";  // "auto", "file", "dcp": one format for all

  std::optional<int64_t> interval;
  int64_t keep_latest_k = 3;
  bool async_enabled = true;
  std::optional<std::string> async_mode;  // "disabled", "async", "async_with_pinned_mem"; set: decides
  bool fail_on_error = false;
  bool load_only = false;
  std::optional<std::string> export_dtype;  // "fp32", "fp16", "bf16", "fp64"
  bool last_save_model_only = false;
  std::vector<std::string> exclude_from_loading;
  std::optional<double> wait_timeout;
  // Accepted for what users bring along; see their rules.
  bool dedicated_async_process_group = true;
  std::string async_process_group_backend = "gloo";
  bool enable_ft_dataloader_checkpoints = false;
  std::optional<std::string> ft_replica_id;
  std::string ft_dataloader_checkpoint_prefix = "ft-replica";
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(CheckpointConfig, (),
                      (dir_name, backend, interval, keep_latest_k, async_enabled, async_mode, fail_on_error, load_only,
                       export_dtype, last_save_model_only, exclude_from_loading, wait_timeout,
                       dedicated_async_process_group, async_process_group_backend, enable_ft_dataloader_checkpoints,
                       ft_replica_id, ft_dataloader_checkpoint_prefix))

struct CommConfig {
  std::string backend = "auto";            // "auto", "host", "gloo", "nccl"
  std::optional<std::string> init_method;  // "env://", "tcp://host:port"; athanor/parallel/launch_environment.h
  double init_timeout_seconds = 60;
  double train_timeout_seconds = 600;
  double bucket_mb = 25;
  bool shared_memory = true;
  bool find_unused_parameters = false;
  bool check = false;
  std::optional<int64_t> replica_check_interval;  // 0: never; unset: as often as costs next to nothing
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(CommConfig, (),
                      (backend, init_method, init_timeout_seconds, train_timeout_seconds, bucket_mb, shared_memory,
                       find_unused_parameters, check, replica_check_interval))

// What `dataloader.<split>` may set differently.
struct SplitLoaderConfig {
  std::optional<int64_t> batch_size;
  std::optional<bool> shuffle;
  std::optional<bool> drop_last;
  std::optional<int64_t> num_workers;
  std::optional<int64_t> prefetch_factor;
  std::optional<bool> in_order;
  std::optional<bool> persistent_workers;
  std::optional<int64_t> snapshot_every_n_steps;
  std::optional<bool> pin_memory;
  std::optional<double> timeout;
  std::optional<std::string> on_damage;
  std::optional<int64_t> max_damaged;
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(SplitLoaderConfig, (),
                      (batch_size, shuffle, drop_last, num_workers, prefetch_factor, in_order, persistent_workers,
                       snapshot_every_n_steps, pin_memory, timeout, on_damage, max_damaged))

struct DataLoaderConfig {
  int64_t batch_size = 32;      // per rank
  std::optional<bool> shuffle;  // unset: true for the training split, false for the others
  bool drop_last = false;
  int64_t num_workers = 0;
  int64_t prefetch_factor = 2;
  bool in_order = true;
  bool persistent_workers = true;
  int64_t snapshot_every_n_steps = 1;
  std::optional<bool> pin_memory;  // unset: when training on an accelerator
  std::string pin_memory_device;   // accepted for what users bring along, as the next
  std::optional<std::string> multiprocessing_context;
  double timeout = 600;
  std::string on_damage = "fail";                   // "fail", "skip"
  int64_t max_damaged = 1000;                       // samples left out with "skip"
  std::optional<int64_t> seed;                      // of the order of samples; unset: `seed`, or 0
  std::map<std::string, SplitLoaderConfig> splits;  // JSON: dataloader.<split>.<option>
  static std::span<const FieldRule> Rules();

  // The options of one split, overrides applied: every field but `shuffle` and `pin_memory` is then final, `splits` is
  // empty.
  DataLoaderConfig For(const std::string& split) const;
};
BOOST_DESCRIBE_STRUCT(DataLoaderConfig, (),
                      (batch_size, shuffle, drop_last, num_workers, prefetch_factor, in_order, persistent_workers,
                       snapshot_every_n_steps, pin_memory, pin_memory_device, multiprocessing_context, timeout,
                       on_damage, max_damaged, seed, splits))

struct EmaConfig {
  bool enabled = false;
  double decay = 0.999;
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(EmaConfig, (), (enabled, decay))

struct HeartbeatConfig {
  bool enabled = false;
  double interval_seconds = 60;
  std::string dir_name = "heartbeats";
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(HeartbeatConfig, (), (enabled, interval_seconds, dir_name))

// Windows of operator traces: athanor/runner/watch/profiler.h.
struct ProfilingConfig {
  bool enabled = false;
  int64_t wait = 1;
  int64_t warmup = 1;
  int64_t active = 3;
  std::optional<int64_t> repeat;
  bool record_shapes = false;
  bool profile_memory = false;
  bool with_stack = false;
  bool with_flops = false;
  std::string trace_dir = "profiles";
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(ProfilingConfig, (),
                      (enabled, wait, warmup, active, repeat, record_shapes, profile_memory, with_stack, with_flops,
                       trace_dir))

// The counterpart of pacing a garbage collector.
struct GcConfig {
  std::optional<int64_t> interval;
  int64_t generation = 1;  // accepted for what users bring along, as the next
  bool disable_automatic = true;
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(GcConfig, (), (interval, generation, disable_automatic))

// The counterpart of compiling a model: the step as one graph of kernels. athanor/runner/step/step_graph.h
struct CompileConfig {
  bool enable = false;
  std::string backend = "cuda_graphs";
  int64_t warmup = 3;
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(CompileConfig, (), (enable, backend, warmup))

// Linear layers in 8 bits: athanor/torch/fp8_linear.h.
struct Fp8Config {
  bool enabled = false;
  std::string recipe = "tensorwise";
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(Fp8Config, (), (enabled, recipe))

// Degrees of the axes of parallelism: athanor/parallel/parallel_topology.h. -1: what the others leave.
struct ParallelAxesConfig {
  std::optional<int64_t> replicate;
  std::optional<int64_t> shard;
  std::optional<int64_t> context;
  std::optional<int64_t> pipeline;
  std::optional<int64_t> tensor;
  std::optional<int64_t> expert;
  std::optional<int64_t> expert_tensor;
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(ParallelAxesConfig, (), (replicate, shard, context, pipeline, tensor, expert, expert_tensor))

struct ParallelConfig {
  ParallelAxesConfig axes;
  bool allow_degree_change = true;  // accepted for what users bring along
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(ParallelConfig, (), (axes, allow_degree_change))

// In which types a divided model is used.
struct MixedPrecisionConfig {
  std::optional<std::string> param_dtype;
  std::optional<std::string> reduce_dtype;
  std::optional<std::string> output_dtype;
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(MixedPrecisionConfig, (), (param_dtype, reduce_dtype, output_dtype))

// The model divided over the axis `shard`: athanor/parallel/strategies/shard_strategy.h.
struct FsdpConfig {
  std::optional<bool> enabled;  // unset: when the axis has several ranks
  std::string shard = "parameters";
  bool reshard_after_forward = true;
  bool prefetch = true;
  bool no_sync = false;
  std::vector<std::string> units;
  double unit_mb = 1;
  std::vector<std::string> ignored_params;
  MixedPrecisionConfig mp_policy;
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(FsdpConfig, (),
                      (enabled, shard, reshard_after_forward, prefetch, no_sync, units, unit_mb, ignored_params,
                       mp_policy))

// What is computed twice instead of kept: athanor/torch/activation_checkpoint.h.
struct ActivationCheckpointConfig {
  bool enabled = false;
  std::vector<std::string> modules;
  int64_t every = 1;
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(ActivationCheckpointConfig, (), (enabled, modules, every))

// How names in a file of weights become the model's.
struct KeyMappingConfig {
  std::string pattern;
  std::string replacement;
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(KeyMappingConfig, (), (pattern, replacement))

struct RunnerConfig {
  std::string stack = "auto";  // "auto", "ddp", "graph", "parallel"
  // Where the run is kept and how it is watched: athanor/runner/record/workspace.h.
  std::string workspace_root = "experiments";
  std::string lineage = "lin";
  std::string experiment = "exp";
  std::optional<std::string> name;
  std::optional<std::string> dir;
  std::optional<std::string> log_file;
  std::optional<std::string> checkpoint_dir;
  bool log = true;
  bool console = true;
  bool tensorboard = false;
  bool csv = false;
  bool jsonl = false;
  HeartbeatConfig heartbeat;
  ProfilingConfig profiling;
  GcConfig gc;
  // Where it starts from.
  bool auto_resume = false;
  std::optional<std::string> resume;
  std::optional<std::string> pretrained;
  std::vector<KeyMappingConfig> pretrained_key_mapping;

  std::optional<int64_t> seed;
  bool deterministic = false;
  std::optional<int64_t> steps;
  std::optional<int64_t> epochs;
  int64_t accum_steps = 1;
  std::vector<std::string> train_splits;
  std::string precision;  // "", "fp32", "bf16", "fp16", "fp8"
  std::optional<double> max_grad_norm;
  std::optional<double> max_grad_value;
  bool skip_nonfinite_grad = false;
  int64_t max_nonfinite_losses = 10;
  std::optional<int64_t> patience;
  std::optional<int64_t> log_interval;
  std::optional<int64_t> threads;
  ScoreConfig score;
  EvaluateConfig evaluate;
  OptimConfig optim;
  SchedConfig sched;
  CheckpointConfig checkpoint;
  CommConfig comm;
  DataLoaderConfig dataloader;
  EmaConfig ema;
  CompileConfig compile;
  Fp8Config fp8;
  ParallelConfig parallel;
  FsdpConfig fsdp;
  ActivationCheckpointConfig activation_checkpoint;
  static std::span<const FieldRule> Rules();
};
BOOST_DESCRIBE_STRUCT(RunnerConfig, (),
                      (stack, workspace_root, lineage, experiment, name, dir, log_file, checkpoint_dir, log, console,
                       tensorboard, csv, jsonl, heartbeat, profiling, gc, auto_resume, resume, pretrained,
                       pretrained_key_mapping, seed, deterministic, steps, epochs, accum_steps, train_splits, precision,
                       max_grad_norm, max_grad_value, skip_nonfinite_grad, max_nonfinite_losses, patience, log_interval,
                       threads, score, evaluate, optim, sched, checkpoint, comm, dataloader, ema, compile, fp8,
                       parallel, fsdp, activation_checkpoint))

// Canonical type names, and the options that a type takes besides the common ones (`type`, `lr`, `weight_decay`,
// `param_groups`; `type`, `interval`). Empty for an unknown type.
std::span<const absl::string_view> OptimTypes();
std::span<const absl::string_view> OptimOptionsOf(absl::string_view type);
std::span<const absl::string_view> SchedTypes();
std::span<const absl::string_view> SchedOptionsOf(absl::string_view type);

}  // namespace athanor
