// What the options of parallel training, graphs and low precision mean and which values they take.
#include "athanor/config/runner_config.h"

namespace athanor {

std::span<const FieldRule> ParallelAxesConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "replicate",
       .meaning = "Replicas of the model, or of its parts. Default: the ranks that `shard` leaves."},
      {.name = "shard",
       .meaning = "Ranks over which a replica is divided. Default: 1; with `fsdp.enabled` and no axis given, all."},
      {.name = "context", .meaning = "Ranks that share a sequence. Only 1 yet."},
      {.name = "pipeline", .meaning = "Stages of the model. Only 1 yet."},
      {.name = "tensor", .meaning = "Ranks that share a layer's matrices. Only 1 yet."},
      {.name = "expert", .meaning = "Ranks that share experts. Only 1 yet."},
      {.name = "expert_tensor", .meaning = "Ranks that share an expert's matrices. Only 1 yet."},
  };
  return rules;
}

std::span<const FieldRule> ParallelConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "axes",
       .meaning = "Degrees of the axes, whose product is the number of ranks; one may be -1: the rest."},
      {.name = "allow_degree_change",
       .meaning = "Accepted for what users bring along: a checkpoint goes on with any axes and any number of ranks."},
  };
  return rules;
}

std::span<const FieldRule> MixedPrecisionConfig::Rules() {
  static const std::vector<absl::string_view> types = {"fp32|float32|float", "bf16|bfloat16", "fp16|float16|half"};
  static const std::vector<FieldRule> rules = {
      {.name = "param_dtype",
       .meaning = "Type in which parameters are gathered and used; inputs are cast to it. Those that are updated keep "
                  "theirs. Default: their own.",
       .allowed = types},
      {.name = "reduce_dtype",
       .meaning = "Type in which gradients are summed over the ranks. Default: that of the gradients.",
       .allowed = types},
      {.name = "output_dtype", .meaning = "Type of the loss. Default: what the model returns.", .allowed = types},
  };
  return rules;
}

std::span<const FieldRule> ActivationCheckpointConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "enabled", .meaning = "Run blocks again in backward."},
      {.name = "modules",
       .meaning = "Names of the torch::nn::Sequential modules whose children are the blocks. Default: all that are not "
                  "within another one."},
      {.name = "every", .meaning = "Every n-th child, from the first.", .min = 1},
  };
  return rules;
}

std::span<const FieldRule> FsdpConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "enabled", .meaning = "Divide the model. Default: true when the axis `shard` has several ranks."},
      {.name = "shard",
       .meaning = "What is divided: optimizer state (ZeRO-1), gradients too (ZeRO-2), parameters too (ZeRO-3, FSDP).",
       .allowed = {"parameters|zero3|full_shard", "gradients|zero2|shard_grad_op", "optimizer|zero1"}},
      {.name = "reshard_after_forward",
       .meaning = "Free a unit's parameters between forward and backward; off: more memory, fewer messages."},
      {.name = "prefetch", .meaning = "Gather the next unit while one computes."},
      {.name = "no_sync",
       .meaning = "Sum gradients over the ranks once per update instead of after each micro-batch: fewer messages, and "
                  "whole gradients in memory."},
      {.name = "units",
       .meaning = "Names of the modules that are gathered together, `*` for any one part of a name: `blocks.*`. "
                  "Default: the children of lists, joined up to `unit_mb`."},
      {.name = "unit_mb", .meaning = "Smallest unit of the default, in MiB.", .min = 0, .max = 65536},
      {.name = "ignored_params", .meaning = "Parameters that stay whole on every rank, by name as `units`."},
      {.name = "mp_policy", .meaning = "Types of parameters, sums and losses."},
  };
  return rules;
}

std::span<const FieldRule> CompileConfig::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "enable",
       .meaning =
           "Capture forward, backward and exchange once per shape of a batch, and the update, and replay each as one "
           "graph. Needs CUDA.",
       .alias = "enabled"},
      {.name = "backend",
       .meaning =
           "How: CUDA graphs. (torch.compile's own run in Python; an AOTInductor package is a task, train_step.)",
       .allowed = {"cuda_graphs|cudagraphs"}},
      {.name = "warmup", .meaning = "Updates before the capture, step by step.", .min = 1, .max = 1000},
  };
  return rules;
}

std::span<const FieldRule> Fp8Config::Rules() {
  static const std::vector<FieldRule> rules = {
      {.name = "enabled", .meaning = "The same as `precision: fp8`."},
      {.name = "recipe",
       .meaning = "One scale per tensor, or one per row of the operands.",
       .allowed = {"tensorwise", "rowwise"}},
  };
  return rules;
}

}  // namespace athanor
