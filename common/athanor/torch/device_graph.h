// Work of a device, captured once and from then on launched as a whole: a CUDA graph. A launch costs the host
// microseconds, whatever is in it; what the work does on the host happens while it is captured and not again.
//
//   ASSIGN_OR_RETURN(std::shared_ptr<DeviceGraphs> graphs, MakeDeviceGraphs(device));
//   GraphedWork work(graphs, /*warmup=*/3);
//   while (...) work.Run([&] { output = model->forward(input); });   // from the fourth time on: one launch
//
// The work must not wait for the device, and must read and write the same tensors each time: new contents go into them
// in place. Numbers of the host are captured as they are. Random numbers go on from launch to launch. Errors are
// LibTorch's exceptions. Not thread-safe; the thread that computes.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"

namespace athanor {

class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
  virtual void Replay() = 0;
};

// Captures of one device. They share one pool of memory: what a graph leaves in it lasts until the next launch, unless
// a tensor of the host still holds it.
class DeviceGraphs {
 public:
  using Work = std::function<void()>;
  virtual ~DeviceGraphs() = default;
  // Does the work as it is, but where captures are made: what libraries set up per stream is there then.
  virtual void Aside(const Work& work) = 0;
  // Captures the work; it has been done once on return.
  virtual std::unique_ptr<DeviceGraph> Capture(const Work& work) = 0;
};

// INVALID_ARGUMENT unless this build and the device have graphs.
absl::StatusOr<std::shared_ptr<DeviceGraphs>> MakeDeviceGraphs(const torch::Device& device);

// One piece of work: done as it is at first, by its graph from then on.
class GraphedWork {
 public:
  GraphedWork(std::shared_ptr<DeviceGraphs> graphs, int64_t warmup) : graphs_(std::move(graphs)), warmup_(warmup) {}

  void Run(const DeviceGraphs::Work& work);
  // Forgets the graph: the next runs warm up anew.
  void Reset();
  // Whether the next run captures the work (then it will read these tensors for good), or launches its graph.
  bool captures_next() const { return graph_ == nullptr && runs_ >= warmup_; }
  bool captured() const { return graph_ != nullptr; }
  int64_t replays() const { return replays_; }

 private:
  std::shared_ptr<DeviceGraphs> graphs_;
  int64_t warmup_;
  int64_t runs_ = 0;
  int64_t replays_ = 0;
  std::unique_ptr<DeviceGraph> graph_;
};

}  // namespace athanor
