// What every option means and which values it takes.
#include "athanor/config/runner_config.h"

namespace athanor {
namespace {

// Where the run is kept and what it writes.
const std::vector<FieldRule>& FolderRules() {
  static const std::vector<FieldRule> rules = {
      {.name = "workspace_root", .meaning = "Folder of all runs. Under the service the job's folder is used instead."},
      {.name = "lineage", .meaning = "Folder of related runs under `workspace_root`."},
      {.name = "experiment", .meaning = "What this run is about; part of its name."},
      {.name = "name", .meaning = "Name for people. Default: `<lineage>-<experiment>`."},
      {.name = "dir",
       .meaning = "The run's folder itself. Default: made of the keys above and the configuration's id."},
      {.name = "log_file", .meaning = "The log file itself. Default: in the run's folder, by the time of the start."},
      {.name = "checkpoint_dir",
       .meaning =
           "The folder of checkpoints itself. Default: in the run's folder. Under the service the job's folder is "
           "used instead."},
      {.name = "log", .meaning = "Write a log file into the run's folder (main process)."},
      {.name = "console",
       .meaning =
           "The lines of the log, and progress on a terminal, on standard error (main process, with a workspace)."},
      {.name = "tensorboard", .meaning = "Write event files for TensorBoard into the run's folder (main process)."},
      {.name = "csv", .meaning = "Write metrics.csv into the run's folder (main process)."},
      {.name = "jsonl", .meaning = "Write metrics.jsonl, a line per read-out, into the run's folder (main process)."},
  };
  return rules;
}

const std::vector<FieldRule>& SectionRules() {
  static const std::vector<FieldRule> rules = {
      {.name = "score", .meaning = "The metric that decides which checkpoint is best."},
      {.name = "evaluate", .meaning = "When and on what to evaluate."},
      {.name = "optim", .meaning = "The optimizer.", .alias = "optimizer"},
      {.name = "sched", .meaning = "The learning-rate schedule.", .alias = "scheduler"},
      {.name = "checkpoint", .meaning = "Saving and loading."},
      {.name = "comm", .meaning = "Communication between the ranks."},
      {.name = "dataloader", .meaning = "Batches; `dataloader.<split>.<option>` overrides for one split."},
      {.name = "ema", .meaning = "Exponential moving average of the weights, used for evaluation."},
      {.name = "compile", .meaning = "The step as graphs of kernels (CUDA)."},
      {.name = "parallel", .meaning = "How the ranks are laid out; for `stack: parallel`."},
      {.name = "fsdp",
       .meaning = "Parameters, gradients and optimizer state divided over the ranks; for `stack: parallel`. "
                  "docs/parallel.md says what to use when."},
      {.name = "activation_checkpoint",
       .meaning =
           "Blocks run again in backward, instead of keeping what they compute: less memory, a third more time."},
      {.name = "fp8", .meaning = "Linear layers in 8 bits, on devices that have them (CUDA, compute capability 8.9)."},
  };
  return rules;
}

}  // namespace

std::span<const FieldRule> RunnerConfig::Rules() {
  static const std::vector<FieldRule> own = {
      {.name = "stack",
       .meaning = "Runner: auto and ddp are data parallelism (TorchRunner); graph is the same with `compile.enable`; "
                  "parallel lays the ranks out over `parallel.axes`, and divides the model as `fsdp` says.",
       .allowed = {"auto", "ddp|torch", "graph|graph_runner", "parallel"}},
      {.name = "heartbeat", .meaning = "A file per rank that tells where it stands."},
      {.name = "profiling", .meaning = "Traces of windows of updates."},
      {.name = "gc", .meaning = "Pacing of memory returns."},
      {.name = "auto_resume",
       .meaning = "Continue from the newest whole checkpoint of the run's folder, if there is one."},
      {.name = "resume", .meaning = "Checkpoint to continue from, with all its state."},
      {.name = "pretrained",
       .meaning = "Weights to start from: a checkpoint's folder, a safetensors file or a PyTorch state dict (.pt)."},
      {.name = "pretrained_key_mapping",
       .meaning = "Renames the tensors of `pretrained`, rule after rule; what wrappers of Python put in front "
                  "(`module.`, `_orig_mod.`, `state_dict.model.`) goes by itself."},
      {.name = "seed",
       .meaning = "Base of all random generators; a rank uses seed + rank. Default: drawn at the start and recorded.",
       .min = 0},
      {.name = "deterministic", .meaning = "Deterministic kernels only, no autotuning."},
      {.name = "steps", .meaning = "Optimizer updates of the whole run. Set this or `epochs`.", .min = 1},
      {.name = "epochs", .meaning = "Passes over the training data. Set this or `steps`.", .min = 1},
      {.name = "accum_steps", .meaning = "Micro-batches per optimizer update.", .min = 1},
      {.name = "train_splits", .meaning = "Splits to train on, in the order of their names. Empty: train."},
      {.name = "precision",
       .meaning = "Autocast type of forward and loss; empty: none. fp8 is bf16 with linear layers in 8 bits.",
       .allowed = {"", "fp32|float32|float", "bf16|bfloat16", "fp16|float16|half",
                   "fp8|float8|fp8_e4m3|float8_e4m3|fp8_e4m3fn|float8_e4m3fn"}},
      {.name = "max_grad_norm",
       .meaning = "Clip the 2-norm of all gradients together to this.",
       .min = 0,
       .min_open = true},
      {.name = "max_grad_value",
       .meaning = "Clip every gradient element to ± this (before the norm).",
       .min = 0,
       .min_open = true},
      {.name = "skip_nonfinite_grad",
       .meaning = "Leave out an update whose gradients hold NaN or infinity on any rank."},
      {.name = "max_nonfinite_losses",
       .meaning = "Fail with nan_loss after this many non-finite losses in a row.",
       .min = 1},
      {.name = "patience",
       .meaning = "Stop after more than this many evaluations without a better score. Default: never.",
       .min = 0},
      {.name = "log_interval",
       .meaning = "Updates between progress lines; 0: none. Default: a hundredth of the run.",
       .min = 0},
      {.name = "threads",
       .meaning = "Intra-op CPU threads per rank. Default: the slot's share of the cores.",
       .min = 1,
       .max = 1024},
  };
  static const std::vector<FieldRule> rules = [] {
    std::vector<FieldRule> all = FolderRules();
    all.insert(all.end(), own.begin(), own.end());
    all.insert(all.end(), SectionRules().begin(), SectionRules().end());
    return all;
  }();
  return rules;
}

std::span<const FieldRule> ScoreConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "split",
       .meaning = "Split of the score. Default: the first evaluated split that begins with `val`, else the first."},
      {.name = "name", .meaning = "Metric of the score."},
      {.name = "direction",
       .meaning = "Whether smaller or larger is better; auto: smaller for names with loss, error or perplexity.",
       .allowed = {"auto", "min", "max"}},
  };
  return rules;
}

std::span<const FieldRule> EvaluateConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "interval", .meaning = "Updates between evaluations; 0: at the end of each epoch.", .min = 0},
      {.name = "splits", .meaning = "Splits to evaluate. Empty: all but the training split."},
  };
  return rules;
}

std::span<const FieldRule> HeartbeatConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "enabled", .meaning = "Write the files."},
      {.name = "interval_seconds", .meaning = "Seconds between writes.", .min = 0, .max = 86400, .min_open = true},
      {.name = "dir_name", .meaning = "Their folder, in the run's folder."},
  };
  return rules;
}

std::span<const FieldRule> CheckpointConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "dir_name", .meaning = "Folder of the checkpoints, in the run's folder."},
      {.name = "backend",
       .meaning = "Accepted for what users bring along: one format serves any number of ranks.",
       .allowed = {"auto", "file", "dcp"}},
      {.name = "interval",
       .meaning = "Epochs (with `epochs`) or updates (with `steps`) between checkpoints; 0: only the last. "
                  "Default: 1 epoch, or a twentieth of the steps.",
       .min = 0},
      {.name = "keep_latest_k",
       .meaning = "Checkpoints to keep; 0: all. Best, tagged and used ones stay in any case.",
       .min = 0},
      {.name = "async_enabled", .meaning = "Write in the background."},
      {.name = "async_mode",
       .meaning = "The same by name; set, it decides. In the last two modes a save copies into host memory that is "
                  "kept between saves.",
       .allowed = {"disabled|false|off|disable", "async|true|on|enable|enabled", "async_with_pinned_mem"}},
      {.name = "fail_on_error",
       .meaning = "A checkpoint that cannot be written fails the run, at the next save or the end."},
      {.name = "load_only", .meaning = "Never write checkpoints."},
      {.name = "export_dtype",
       .meaning = "Floating-point type of the last save; needs `last_save_model_only`.",
       .allowed = {"fp32|float32|float", "fp16|float16|half", "bf16|bfloat16", "fp64|float64|double"}},
      {.name = "last_save_model_only", .meaning = "The last checkpoint holds the model alone."},
      {.name = "exclude_from_loading",
       .meaning = "Parts of a checkpoint that are not restored: model, ema, optimizer, scheduler (also lr_scheduler), "
                  "dataloader (also dataloaders, data_loader), train, rng. One name or a list."},
      {.name = "wait_timeout",
       .meaning = "Seconds to wait for writes at the end. Default: until they are done.",
       .min = 0},
      {.name = "dedicated_async_process_group",
       .meaning = "Accepted for what users bring along: writers never use the training's process group."},
      {.name = "async_process_group_backend",
       .meaning = "Accepted for what users bring along: writers need no process group.",
       .allowed = {"gloo"}},
      {.name = "enable_ft_dataloader_checkpoints",
       .meaning = "Accepted for what users bring along: every checkpoint holds the data position of all ranks."},
      {.name = "ft_replica_id", .meaning = "Accepted for what users bring along; see the one above."},
      {.name = "ft_dataloader_checkpoint_prefix", .meaning = "Accepted for what users bring along; see above."},
  };
  return rules;
}

std::span<const FieldRule> ProfilingConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "enabled", .meaning = "Record traces (Chrome trace JSON, one file per window and rank)."},
      {.name = "wait", .meaning = "Updates of each cycle that are not watched.", .min = 0},
      {.name = "warmup", .meaning = "Updates that are watched and thrown away.", .min = 0},
      {.name = "active", .meaning = "Updates of a window.", .min = 1},
      {.name = "repeat", .meaning = "Windows to record. Default: until the end.", .min = 1},
      {.name = "record_shapes", .meaning = "Shapes of the operators' inputs."},
      {.name = "profile_memory", .meaning = "Allocations."},
      {.name = "with_stack", .meaning = "Call stacks of C++ operators."},
      {.name = "with_flops", .meaning = "Floating-point operations of matrix products and convolutions."},
      {.name = "trace_dir", .meaning = "Folder of the traces, in the run's folder."},
  };
  return rules;
}

std::span<const FieldRule> GcConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "interval",
       .meaning = "Updates between returns of freed memory to the system and of cached blocks to the device. Default: "
                  "never.",
       .min = 1},
      {.name = "generation",
       .meaning = "Accepted for what users bring along: C++ has no generations of garbage.",
       .min = 0,
       .max = 2},
      {.name = "disable_automatic", .meaning = "Accepted for what users bring along: nothing collects by itself."},
  };
  return rules;
}

std::span<const FieldRule> CommConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "backend",
       .meaning = "Transport of the collectives; auto: nccl on CUDA, host (shared memory and sockets) on the CPU.",
       .allowed = {"auto", "host", "gloo", "nccl"}},
      {.name = "init_method",
       .meaning = "Where the ranks of a program without the service meet: env:// (MASTER_ADDR, MASTER_PORT) or "
                  "tcp://host:port. Default: the environment."},
      {.name = "init_timeout_seconds",
       .meaning = "Limit for joining and the first collectives.",
       .min = 0,
       .max = 86400,
       .min_open = true},
      {.name = "train_timeout_seconds",
       .meaning = "Limit of a collective after the first update.",
       .min = 0,
       .max = 86400,
       .min_open = true},
      {.name = "bucket_mb",
       .meaning = "Size of a gradient bucket in MiB, where there are buckets (not through memory).",
       .min = 0,
       .max = 4096,
       .min_open = true},
      {.name = "shared_memory",
       .meaning = "CPU ranks of one machine exchange through memory; off: over the network's loopback."},
      {.name = "find_unused_parameters",
       .meaning = "A forward pass may leave parameters out, other ones on other ranks."},
      {.name = "check",
       .meaning =
           "Compares, before each collective, what the ranks are about to enter: ranks that differ in the call, its "
           "order, dtypes or shapes end with an error that names both and where each was called. Slower: for finding "
           "a fault."},
      {.name = "replica_check_interval",
       .meaning =
           "Updates between checks that all ranks hold the same weights, bit for bit; ranks that do not end the "
           "run. 0: never. Default: as often as takes less than 0.1 % of the time, where all ranks have the same "
           "kind of processor or device and as many threads.",
       .min = 0},
  };
  return rules;
}

std::span<const FieldRule> DataLoaderConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "batch_size", .meaning = "Samples of a micro-batch on one rank.", .min = 1},
      {.name = "shuffle", .meaning = "New order in every epoch. Default: true for the training split only."},
      {.name = "drop_last", .meaning = "Leave out the last, smaller batch."},
      {.name = "num_workers",
       .meaning = "Loader threads; 0: the training thread makes the batches.",
       .min = 0,
       .max = 256},
      {.name = "prefetch_factor", .meaning = "Batches ahead per worker.", .min = 1, .max = 1024},
      {.name = "in_order", .meaning = "Keep the order of batches for any number of workers."},
      {.name = "persistent_workers", .meaning = "Keep the loader threads from epoch to epoch."},
      {.name = "snapshot_every_n_steps",
       .meaning = "Accepted for what users bring along: loader states are exact after every batch in any case.",
       .min = 1},
      {.name = "pin_memory", .meaning = "Page-locked batches. Default: true when training on an accelerator."},
      {.name = "pin_memory_device",
       .meaning = "Accepted for what users bring along: pages are locked for the device of the run."},
      {.name = "multiprocessing_context",
       .meaning = "Accepted for what users bring along: workers are threads.",
       .allowed = {"fork", "spawn", "forkserver"}},
      {.name = "timeout", .meaning = "Seconds to wait for a batch.", .min = 0, .max = 86400, .min_open = true},
      {.name = "on_damage",
       .meaning = "A sample that cannot be read: the run fails, or the sample is left out and counted.",
       .allowed = {"fail", "skip"}},
      {.name = "max_damaged", .meaning = "Different samples that may be left out with `on_damage: skip`.", .min = 0},
      {.name = "seed", .meaning = "Of the order of samples. Default: `seed`.", .min = 0},
      {.name = "splits", .meaning = "Overrides per split.", .rest = true},
  };
  return rules;
}

std::span<const FieldRule> SplitLoaderConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "batch_size", .meaning = "As above, for this split.", .min = 1},
      {.name = "shuffle", .meaning = "As above, for this split; only for one that is trained on."},
      {.name = "drop_last", .meaning = "As above, for this split; only for one that is trained on."},
      {.name = "num_workers", .meaning = "As above, for this split.", .min = 0, .max = 256},
      {.name = "prefetch_factor", .meaning = "As above, for this split.", .min = 1, .max = 1024},
      {.name = "in_order", .meaning = "As above, for this split."},
      {.name = "persistent_workers", .meaning = "As above, for this split."},
      {.name = "snapshot_every_n_steps", .meaning = "As above, for this split.", .min = 1},
      {.name = "pin_memory", .meaning = "As above, for this split."},
      {.name = "timeout", .meaning = "As above, for this split.", .min = 0, .max = 86400, .min_open = true},
      {.name = "on_damage", .meaning = "As above, for this split.", .allowed = {"fail", "skip"}},
      {.name = "max_damaged", .meaning = "As above, for this split.", .min = 0},
  };
  return rules;
}

std::span<const FieldRule> EmaConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "enabled", .meaning = "Keep the average and evaluate with it."},
      {.name = "decay",
       .meaning = "Share of the old average that each update keeps.",
       .min = 0,
       .max = 1,
       .max_open = true},
  };
  return rules;
}

std::span<const FieldRule> KeyMappingConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "pattern", .meaning = "Regular expression (ECMAScript); every match in the tensor's name is replaced."},
      {.name = "replacement", .meaning = "What comes there; $1 is what the first parentheses found."},
  };
  return rules;
}

std::span<const FieldRule> ParamGroupConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "pattern",
       .meaning = "Regular expression (ECMAScript), searched in the parameter's name; the first match wins."},
      {.name = "lr", .meaning = "Learning rate of the group.", .min = 0},
      {.name = "lr_multiplier", .meaning = "Instead: times `optim.lr`.", .min = 0},
      {.name = "weight_decay", .meaning = "Weight decay of the group.", .min = 0},
      {.name = "weight_decay_multiplier", .meaning = "Instead: times `optim.weight_decay`.", .min = 0},
      {.name = "beta1", .meaning = "First beta of the group.", .min = 0, .max = 1, .max_open = true},
      {.name = "beta2", .meaning = "Second beta of the group.", .min = 0, .max = 1, .max_open = true},
      {.name = "eps", .meaning = "eps of the group.", .min = 0},
      {.name = "momentum", .meaning = "Momentum of the group.", .min = 0},
      {.name = "dampening", .meaning = "Dampening of the group."},
      {.name = "nesterov", .meaning = "Nesterov momentum in the group."},
      {.name = "amsgrad", .meaning = "The largest second moment so far in the group."},
      {.name = "alpha", .meaning = "alpha of the group."},
  };
  return rules;
}

std::span<const FieldRule> OptimConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "type",
       .meaning = "The optimizer; letter case does not matter. Empty: none.",
       .allowed = {"", "sgd", "adam|torch_adam", "adamw|torch_adamw", "adadelta", "adagrad", "adamax", "asgd", "nadam",
                   "radam", "rmsprop", "rprop", "lion", "muon", "lbfgs", "adafactor"}},
      {.name = "lr", .meaning = "Learning rate. Default: the type's.", .min = 0},
      {.name = "weight_decay",
       .meaning = "Weight decay: L2 term, decoupled for adamw, lion, muon. Default: the type's.",
       .min = 0},
      {.name = "betas", .meaning = "Two decay rates of the running means.", .min = 0, .max = 1, .max_open = true},
      {.name = "eps", .meaning = "Added to denominators.", .min = 0},
      {.name = "momentum", .meaning = "Momentum factor.", .min = 0},
      {.name = "dampening", .meaning = "Dampening of the momentum."},
      {.name = "nesterov", .meaning = "Nesterov momentum."},
      {.name = "amsgrad", .meaning = "Use the maximum of past second moments."},
      {.name = "alpha", .meaning = "Smoothing constant.", .min = 0},
      {.name = "centered", .meaning = "Normalise by the estimated variance."},
      {.name = "lr_decay", .meaning = "Decay of the learning rate per update.", .min = 0},
      {.name = "initial_accumulator_value", .meaning = "Start of the sum of squares.", .min = 0},
      {.name = "momentum_decay", .meaning = "Decay of the momentum.", .min = 0},
      {.name = "decoupled_weight_decay", .meaning = "Decouple the weight decay, as adamw does."},
      {.name = "ns_steps", .meaning = "Newton-Schulz iterations.", .min = 1, .max = 99},
      {.name = "rho", .meaning = "Share of the old running means.", .min = 0, .max = 1},
      {.name = "lambd", .meaning = "Decay of the averaged weights.", .min = 0},
      {.name = "t0", .meaning = "Update at which averaging starts.", .min = 0},
      {.name = "etas", .meaning = "Two factors of the step size: after a turn, and without one.", .min = 0},
      {.name = "step_sizes", .meaning = "Smallest and largest step size.", .min = 0},
      {.name = "max_iter", .meaning = "Iterations of an update.", .min = 1},
      {.name = "max_eval", .meaning = "Evaluations of an update. Default: 1.25 times `max_iter`.", .min = 1},
      {.name = "tolerance_grad", .meaning = "Stop when no gradient is larger.", .min = 0},
      {.name = "tolerance_change", .meaning = "Stop when nothing changes more than this.", .min = 0},
      {.name = "history_size", .meaning = "Earlier updates that shape the next one.", .min = 1},
      {.name = "line_search_fn",
       .meaning = "Search for the step's length. Default: none.",
       .allowed = {"strong_wolfe"}},
      {.name = "beta2_decay", .meaning = "Exponent of the decay of the second moments. Default: -0.8.", .max = 0},
      {.name = "eps1",
       .meaning = "Lower bound of mean squared gradients. Default: the dtype's epsilon, squared.",
       .min = 0},
      {.name = "clip_threshold",
       .meaning = "Largest root mean square of an update. Default: 1.",
       .min = 1,
       .alias = "d"},
      {.name = "param_groups", .meaning = "Overrides for parameters by name; the rest form a last group."},
  };
  return rules;
}

namespace {

// Of one_cycle, cyclic and reduce_on_plateau.
const std::vector<FieldRule>& CycleRules() {
  static const std::vector<FieldRule> rules = {
      {.name = "max_lr", .meaning = "Highest learning rate. Default: one_cycle needs it.", .min = 0, .min_open = true},
      {.name = "base_lr", .meaning = "Lowest learning rate of the cycle.", .min = 0},
      {.name = "step_size_up", .meaning = "Intervals of the rising half. Default: 2000.", .min = 1},
      {.name = "step_size_down", .meaning = "Intervals of the falling half. Default: as up.", .min = 1},
      {.name = "pct_start", .meaning = "Share of the rise. Default: 0.3.", .min = 0, .max = 1},
      {.name = "anneal_strategy", .meaning = "Shape of rise and fall. Default: cos.", .allowed = {"cos", "linear"}},
      {.name = "div_factor", .meaning = "Start = max_lr / this. Default: 25.", .min = 0, .min_open = true},
      {.name = "final_div_factor", .meaning = "End = start / this. Default: 10000.", .min = 0, .min_open = true},
      {.name = "three_phase", .meaning = "Fall to the start, then to the end."},
      {.name = "cycle_momentum",
       .meaning = "Move the momentum (or first beta) against the learning rate. Default: true."},
      {.name = "base_momentum",
       .meaning = "Lowest momentum. Default: 0.85; cyclic: 0.8.",
       .min = 0,
       .max = 1,
       .max_open = true},
      {.name = "max_momentum",
       .meaning = "Highest momentum. Default: 0.95; cyclic: 0.9.",
       .min = 0,
       .max = 1,
       .max_open = true},
      {.name = "mode",
       .meaning = "cyclic: triangular (default), triangular2, exp_range; reduce_on_plateau: min (default), max.",
       .allowed = {"triangular", "triangular2", "exp_range", "min", "max"}},
      {.name = "factor",
       .meaning = "Factor of a reduction. Default: 0.1.",
       .min = 0,
       .max = 1,
       .min_open = true,
       .max_open = true},
      {.name = "patience", .meaning = "Evaluations without improvement before a reduction. Default: 10.", .min = 0},
      {.name = "threshold", .meaning = "Smallest improvement that counts. Default: 0.0001.", .min = 0},
      {.name = "threshold_mode",
       .meaning = "Improvement in proportion or in amount. Default: rel.",
       .allowed = {"rel", "abs"}},
      {.name = "cooldown", .meaning = "Evaluations to wait after a reduction. Default: 0.", .min = 0},
      {.name = "eps", .meaning = "Smaller reductions are not made. Default: 1e-08.", .min = 0},
  };
  return rules;
}

}  // namespace

std::span<const FieldRule> SchedConfig::Rules() {
  static const std::vector<FieldRule> rules = [] {
    std::vector<FieldRule> all = {
        {.name = "type",
         .meaning =
             "The schedule. Empty: none. `cosine` has warm-up and cool-down and falls in proportion; the curve of "
             "PyTorch's CosineAnnealingLR is `cosine_annealing`.",
         .allowed = {"", "linear", "cosine", "constant", "step", "multistep|multi_step", "exponential",
                     "cosine_annealing", "cosine_warm_restarts", "one_cycle", "cyclic", "reduce_on_plateau|plateau"}},
        {.name = "interval",
         .meaning = "What advances it. Default: step; reduce_on_plateau: epoch.",
         .allowed = {"step|steps|update|updates", "epoch|epochs|eval|evaluation|validation"}},
        {.name = "monitor",
         .meaning = "Metric to watch: `<split>.<metric>` or `<metric>` of the score's split. Default: the score."},
        {.name = "total_steps", .meaning = "Length in intervals. Default: the run's.", .min = 1},
        {.name = "warmup_steps", .meaning = "Linear rise at the start. Default: a twentieth.", .min = 0},
        {.name = "warmup_ratio", .meaning = "Instead: share of the whole.", .min = 0, .max = 1},
        {.name = "cooldown_steps", .meaning = "Linear fall to `min_lr` at the end. Default: a fifth.", .min = 0},
        {.name = "cooldown_ratio", .meaning = "Instead: share of the whole.", .min = 0, .max = 1},
        {.name = "final_lr", .meaning = "Learning rate at the end of the decay.", .min = 0},
        {.name = "final_lr_ratio", .meaning = "Instead: share of the base learning rate. Default: 0.001.", .min = 0},
        {.name = "min_lr", .meaning = "Never below. Default: 1e-09; reduce_on_plateau: 0.", .min = 0},
        {.name = "scaling",
         .meaning = "Decay in proportion or in amount. Default: percentile; numerical with `final_lr`.",
         .allowed = {"percentile", "numerical"}},
        {.name = "gamma", .meaning = "Factor of each decay. Default: 0.1; cyclic: 1.", .min = 0, .min_open = true},
        {.name = "step_size", .meaning = "Intervals between decays.", .min = 1},
        {.name = "milestones", .meaning = "Positions of the decays, ascending.", .min = 0},
        {.name = "t_max",
         .meaning = "Half a period, in intervals. Default: the run's length.",
         .min = 1,
         .alias = "T_max"},
        {.name = "t_0", .meaning = "Length of the first period.", .min = 1, .alias = "T_0"},
        {.name = "t_mult", .meaning = "Factor from one period to the next. Default: 1.", .min = 1, .alias = "T_mult"},
        {.name = "eta_min", .meaning = "Lowest learning rate. Default: 0.", .min = 0},
    };
    all.insert(all.end(), CycleRules().begin(), CycleRules().end());
    return all;
  }();
  return rules;
}

}  // namespace athanor
