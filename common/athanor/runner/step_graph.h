// The forward and backward pass of a micro-batch, with the exchange of gradients, as one CUDA graph: captured once per
// shape of a batch, then replayed with a single launch. The counterpart of compiling a model.
//
//   StepGraph graph({.warmup = 3});
//   StepOutput output = graph.Run(batch, window_ends, [&](const Batch& b) { return TrainStep(b); });
//
// What the step does on the host (Python's side effects, prints, std::rand) happens at warm-up and capture only; what
// it does on the device happens at every replay: random numbers go on, running statistics too. The step must not wait
// for the device, and must not depend on the batch but by its tensors. Gradients are accumulated into tensors that
// stay: zero them in place between updates. The update itself (scaling, clipping, the fused optimizer) is a handful of
// kernels and is launched as it is: its step count and learning rate change every time.
//
// At most kMaxGraphs shapes are captured, each with the memory of its own activations shared in one pool; further
// shapes run step by step. Errors are LibTorch's exceptions. Not thread-safe; the training thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "athanor/data/dataset.h"
#include "athanor/runner/step_output.h"

namespace athanor {

// INVALID_ARGUMENT unless this build and the device have CUDA graphs.
absl::Status CheckStepGraph(const torch::Device& device);

class StepGraph {
 public:
  static constexpr size_t kMaxGraphs = 8;
  struct Options {
    int64_t warmup = 3;  // runs of each shape before its capture; with ranks to exchange with at least 11 are made
    bool exchanges = false;
  };
  using StepFn = std::function<StepOutput(const Batch& batch)>;

  explicit StepGraph(const Options& options);
  ~StepGraph();

  // `window_ends`: the step exchanges gradients, which makes it another graph. The output's tensors are copies: they
  // may be kept.
  StepOutput Run(const Batch& batch, bool window_ends, const StepFn& step);
  int64_t replays() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace athanor
