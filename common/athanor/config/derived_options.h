// What follows from a RunnerConfig where it says nothing itself. One place, so that the runner, its checkpoints and the
// documentation agree.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "athanor/config/runner_config.h"

namespace athanor {

// The splits to train on: `train_splits`, each once, sorted; else "train".
inline std::vector<std::string> TrainSplitNames(const RunnerConfig& config) {
  if (config.train_splits.empty()) return {"train"};
  const std::set<std::string> names(config.train_splits.begin(), config.train_splits.end());
  return {names.begin(), names.end()};
}

// Updates of one pass over `batches` micro-batches; the last window may be short.
inline int64_t UpdatesPerPass(int64_t batches, int64_t accum_steps) {
  return (batches + accum_steps - 1) / accum_steps;
}

// `steps`, or epochs times the updates of a pass.
inline int64_t TotalUpdates(const RunnerConfig& config, int64_t updates_per_pass) {
  return config.steps ? *config.steps : config.epochs.value_or(1) * updates_per_pass;
}

// Updates between progress lines: `log_interval`, else a hundredth of the run, rounded up; 1024 when its length is not
// known (0).
inline int64_t LogInterval(const RunnerConfig& config, int64_t total_updates) {
  if (config.log_interval) return *config.log_interval;
  return total_updates > 0 ? std::max<int64_t>((total_updates + 99) / 100, 1) : 1024;
}

// Epochs (with `epochs`) or updates (with `steps`) between checkpoints: `checkpoint.interval`, else 1 epoch or a
// twentieth of the steps, rounded up.
inline int64_t CheckpointInterval(const RunnerConfig& config) {
  if (config.checkpoint.interval) return *config.checkpoint.interval;
  return config.steps ? std::max<int64_t>((*config.steps + 19) / 20, 1) : 1;
}

// Whether linear layers compute in 8 bits: `fp8.enabled` or `precision: fp8`.
inline bool UsesFp8(const RunnerConfig& config) {
  return config.fp8.enabled || config.precision == "fp8";
}

// The precision that a run computes in, whichever option says so.
inline std::string EffectivePrecision(const RunnerConfig& config) {
  return UsesFp8(config) ? "fp8" : config.precision;
}

// Whether the step is replayed as a graph: `compile.enable` or `stack: graph`.
inline bool UsesStepGraph(const RunnerConfig& config) {
  return config.compile.enable || config.stack == "graph";
}

// The degrees of `parallel.axes` that are set. Of `replicate` and `shard`, one that is not set takes what the others
// leave: with `fsdp.enabled` and no `shard` that is `shard`, else `replicate`.
inline std::map<std::string, int64_t> ParallelAxes(const RunnerConfig& config) {
  const ParallelAxesConfig& axes = config.parallel.axes;
  std::map<std::string, int64_t> degrees;
  bool open = false;
  const auto set = [&](const char* name, const std::optional<int64_t>& degree) {
    if (!degree.has_value()) return;
    degrees[name] = *degree;
    open = open || *degree == -1;
  };
  set("replicate", axes.replicate);
  set("shard", axes.shard);
  set("context", axes.context);
  set("pipeline", axes.pipeline);
  set("tensor", axes.tensor);
  set("expert", axes.expert);
  set("expert_tensor", axes.expert_tensor);
  const bool shards = config.fsdp.enabled.value_or(false) && !axes.shard.has_value();
  if (!open && shards) degrees["shard"] = -1;
  if (!open && !shards && !axes.replicate.has_value()) degrees["replicate"] = -1;
  return degrees;
}

// The parts of a checkpoint that can be loaded, or left out, one by one.
inline constexpr std::array<absl::string_view, 7> kCheckpointParts = {"model",      "ema",   "optimizer", "scheduler",
                                                                      "dataloader", "train", "rng"};
inline bool IsCheckpointPart(absl::string_view name) {
  return std::find(kCheckpointParts.begin(), kCheckpointParts.end(), name) != kCheckpointParts.end();
}

// Whether checkpoints are written in the background: `checkpoint.async_mode`, else `async_enabled`.
inline bool AsyncCheckpoints(const CheckpointConfig& config) {
  return config.async_mode ? *config.async_mode != "disabled" : config.async_enabled;
}

}  // namespace athanor
