// The plain parts of a run's state, and the random generators of this process.
//
// Values; not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "athanor/checkpoint/training_state.h"

namespace athanor {

struct TrainState {
  int64_t step = 0;             // completed optimizer updates (skipped ones do not count)
  int64_t micro_step = 0;       // micro-batches, aligned up to whole windows of accum_steps
  int64_t epoch = 0;            // passes completed
  int64_t samples = 0;          // of this rank
  int64_t skipped_updates = 0;  // non-finite gradients
  bool stopped_early = false;   // patience is over
  // What a schedule monitors, of an evaluation whose pass has not ended yet.
  std::optional<double> monitored;

  // After an attempted update.
  void Advance(bool updated, bool epoch_ended, int64_t new_samples, int64_t accum_steps);

  nlohmann::json ToJson() const;
  absl::Status FromJson(const nlohmann::json& json);  // DATA_LOSS names the field
};

struct ElasticState {
  int64_t restarts = 0;            // resumes that this state has gone through
  int64_t resumed_from_step = -1;  // in this process; -1: from scratch

  nlohmann::json ToJson() const { return {{"restarts", restarts}}; }
  absl::Status FromJson(const nlohmann::json& json);  // DATA_LOSS names the field
};

// Seeds the generators of this process (CPU and CUDA). Call it with the job's seed before the model is made: rank 0's
// weights count.
void SeedGenerators(uint64_t seed);
// Whether nobody has seeded LibTorch's generator of the CPU in this process.
bool GeneratorsAreUnseeded();

// The generators' states as tensors "rng.cpu", "rng.cuda" (of `device`), and back. DATA_LOSS for a state that does not
// fit.
void CaptureGenerators(const torch::Device& device, TensorMap* out);
absl::Status RestoreGenerators(const torch::Device& device, const TensorMap& tensors);

// Snapshots of this process's random generators.
struct RngState {
  TensorMap generators;  // "rng.cpu", "rng.cuda"; empty: none were taken

  void Capture(const torch::Device& device) { CaptureGenerators(device, &generators); }
  absl::Status Restore(const torch::Device& device) const { return RestoreGenerators(device, generators); }
};

// The three together: where a run stands, apart from its model, optimizer and data.
struct RunnerState {
  TrainState train;
  ElasticState elastic;
  RngState rng;

  nlohmann::json StateDict() const;  // {"train": …, "elastic": …}; random states are tensors: rng.generators
  // Takes the parts that are there, and passes over others. DATA_LOSS names the field that is damaged; then nothing has
  // changed.
  absl::Status LoadStateDict(const nlohmann::json& state);
};

}  // namespace athanor
