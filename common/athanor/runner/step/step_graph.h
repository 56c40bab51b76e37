// The forward and backward pass of a micro-batch, with the exchange of gradients, as one graph of the device's:
// captured once per shape of a batch, then replayed with a single launch. The counterpart of compiling a model; the
// update is a graph of its own (optim/optimizer_container.h).
//
//   StepGraph graph(graphs, {.warmup = 3});
//   StepOutput output = graph.Run(batch, window_ends, [&](const Batch& b) { return TrainStep(b); });
//
// What the step does on the host (prints, std::rand) happens at warm-up and capture only; what it does on the device
// happens at every replay: random numbers go on, running statistics too. The step must not wait for the device, and
// must not depend on the batch but by its tensors. Gradients are accumulated into tensors that stay: zero them in place
// between updates.
//
// At most kMaxGraphs shapes are captured, each with the memory of its own activations shared in one pool; further
// shapes run step by step, and so do ragged batches. Errors are LibTorch's exceptions. Not thread-safe; the training
// thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "athanor/data/dataset.h"
#include "athanor/runner/step/step_output.h"
#include "athanor/torch/device_graph.h"

namespace athanor {

class StepGraph {
 public:
  static constexpr size_t kMaxGraphs = 8;
  struct Options {
    int64_t warmup = 3;  // runs of each shape before its capture; with ranks to exchange with at least 11 are made
    bool exchanges = false;
  };
  using StepFn = std::function<StepOutput(const Batch& batch)>;

  StepGraph(std::shared_ptr<DeviceGraphs> graphs, const Options& options);
  ~StepGraph();

  // `window_ends`: the step exchanges gradients, which makes it another graph. The output's tensors are copies: they
  // may be kept.
  StepOutput Run(const Batch& batch, bool window_ends, const StepFn& step);
  int64_t replays() const;  // of all shapes

 private:
  struct Key {
    std::map<std::string, std::vector<int64_t>> shapes;  // by name: dtype, sizes
    int64_t size = 0;
    bool window_ends = false;
    auto operator<=>(const Key&) const = default;
  };
  struct Captured {
    GraphedWork work;
    Batch batch;  // its tensors are what the graph reads
    StepOutput output;
  };
  static Key KeyOf(const Batch& batch, bool window_ends);

  std::shared_ptr<DeviceGraphs> graphs_;
  Options options_;
  std::map<Key, Captured> captured_;
};

}  // namespace athanor
