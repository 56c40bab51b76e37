#include "athanor/torch/device_graph.h"

#include "absl/strings/str_cat.h"
#ifdef ATHANOR_CUDA
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace athanor {

#ifdef ATHANOR_CUDA

namespace {

class CudaGraph : public DeviceGraph {
 public:
  void Replay() override { graph.replay(); }
  at::cuda::CUDAGraph graph;
};

class CudaGraphs : public DeviceGraphs {
 public:
  explicit CudaGraphs(const torch::Device& device) : stream_(c10::cuda::getStreamFromPool(false, device.index())) {}

  void Aside(const Work& work) override {
    const c10::cuda::CUDAStream main = c10::cuda::getCurrentCUDAStream();
    at::cuda::CUDAEvent before, after;
    before.record(main);
    before.block(stream_);
    {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      work();
    }
    after.record(stream_);
    after.block(main);
  }

  std::unique_ptr<DeviceGraph> Capture(const Work& work) override {
    auto captured = std::make_unique<CudaGraph>();
    Aside([&] {
      captured->graph.capture_begin(pool_, cudaStreamCaptureModeThreadLocal);
      try {
        work();
      } catch (...) {
        EndQuietly(&captured->graph);
        throw;
      }
      captured->graph.capture_end();
    });
    captured->Replay();
    return captured;
  }

 private:
  // Of a capture that failed: its own error is the one to tell.
  static void EndQuietly(at::cuda::CUDAGraph* graph) {
    try {
      graph->capture_end();
    } catch (const c10::Error&) {
    }
  }

  const at::cuda::MempoolId_t pool_ = at::cuda::graph_pool_handle();
  const c10::cuda::CUDAStream stream_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<DeviceGraphs>> MakeDeviceGraphs(const torch::Device& device) {
  if (device.is_cuda()) return std::make_shared<CudaGraphs>(device);
  return absl::InvalidArgumentError(absl::StrCat("CUDA graphs need CUDA; the run is on ", device.str()));
}

#else

absl::StatusOr<std::shared_ptr<DeviceGraphs>> MakeDeviceGraphs(const torch::Device& device) {
  return absl::InvalidArgumentError(absl::StrCat("CUDA graphs need a build with CUDA; the run is on ", device.str()));
}

#endif

void GraphedWork::Run(const DeviceGraphs::Work& work) {
  if (graph_ != nullptr) {
    graph_->Replay();
    ++replays_;
  } else if (captures_next()) {
    graph_ = graphs_->Capture(work);
  } else {
    ++runs_;
    graphs_->Aside(work);
  }
}

void GraphedWork::Reset() {
  graph_.reset();
  runs_ = 0;
}

}  // namespace athanor
