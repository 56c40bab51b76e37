#include "athanor/runner/step_graph.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

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

constexpr int64_t kWarmupOfExchange = 11;  // the reducer settles its buckets, NCCL its connections

struct Key {
  std::vector<int64_t> input, target;
  int input_type = -1, target_type = -1;
  int64_t size = 0;
  bool window_ends = false;
  auto operator<=>(const Key&) const = default;
};

Key KeyOf(const Batch& batch, bool window_ends) {
  Key key{.size = batch.size, .window_ends = window_ends};
  if (batch.input.defined()) {
    key.input = batch.input.sizes().vec();
    key.input_type = static_cast<int>(batch.input.scalar_type());
  }
  if (batch.target.defined()) {
    key.target = batch.target.sizes().vec();
    key.target_type = static_cast<int>(batch.target.scalar_type());
  }
  return key;
}

torch::Tensor Copied(const torch::Tensor& tensor) {
  return tensor.defined() ? tensor.detach().clone() : tensor;
}

StepOutput Copied(const StepOutput& output) {
  StepOutput copy;
  copy.loss = Copied(output.loss);
  copy.weight = Copied(output.weight);
  copy.scores = Copied(output.scores);
  copy.labels = Copied(output.labels);
  for (const auto& [name, value] : output.metrics) copy.metrics[name] = Copied(value);
  return copy;
}

struct Captured {
  int64_t runs = 0;
  Batch batch;  // its tensors are what the graph reads
  StepOutput output;
  std::unique_ptr<at::cuda::CUDAGraph> graph;
};

}  // namespace

struct StepGraph::Impl {
  Options options;
  std::map<Key, Captured> captured;
  at::cuda::MempoolId_t pool = at::cuda::graph_pool_handle();
  std::optional<c10::cuda::CUDAStream> stream;
  int64_t replays = 0;

  StepOutput OnSide(const Batch& batch, const StepFn& step, at::cuda::CUDAGraph* graph) {
    if (!stream.has_value()) stream = c10::cuda::getStreamFromPool();
    const c10::cuda::CUDAStream main = c10::cuda::getCurrentCUDAStream();
    at::cuda::CUDAEvent before, after;
    before.record(main);
    before.block(*stream);
    StepOutput output;
    {
      const c10::cuda::CUDAStreamGuard guard(*stream);
      if (graph != nullptr) graph->capture_begin(pool, cudaStreamCaptureModeThreadLocal);
      output = step(batch);
      if (graph != nullptr) graph->capture_end();
    }
    after.record(*stream);
    after.block(main);
    return output;
  }

  StepOutput Capture(const Batch& batch, const StepFn& step, Captured* one) {
    one->batch = batch;
    one->batch.input = Copied(batch.input);
    one->batch.target = Copied(batch.target);
    one->graph = std::make_unique<at::cuda::CUDAGraph>();
    one->output = OnSide(one->batch, step, one->graph.get());
    return Replay(batch, one);
  }

  StepOutput Replay(const Batch& batch, Captured* one) {
    if (batch.input.defined()) one->batch.input.copy_(batch.input, /*non_blocking=*/true);
    if (batch.target.defined()) one->batch.target.copy_(batch.target, /*non_blocking=*/true);
    one->graph->replay();
    ++replays;
    return Copied(one->output);
  }
};

absl::Status CheckStepGraph(const torch::Device& device) {
  if (device.is_cuda()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("compile.enable: CUDA graphs need CUDA; the run is on ", device.str()));
}

StepGraph::StepGraph(const Options& options) : impl_(std::make_unique<Impl>()) {
  impl_->options = options;
  if (options.exchanges) impl_->options.warmup = std::max(options.warmup, kWarmupOfExchange);
}
StepGraph::~StepGraph() = default;

StepOutput StepGraph::Run(const Batch& batch, bool window_ends, const StepFn& step) {
  if (batch.ragged.has_value()) return step(batch);  // hardly two batches are alike
  const Key key = KeyOf(batch, window_ends);
  if (!impl_->captured.contains(key) && impl_->captured.size() >= kMaxGraphs) return step(batch);
  Captured& one = impl_->captured[key];
  if (one.graph != nullptr) return impl_->Replay(batch, &one);
  if (one.runs++ < impl_->options.warmup) return impl_->OnSide(batch, step, nullptr);
  return impl_->Capture(batch, step, &one);
}

int64_t StepGraph::replays() const {
  return impl_->replays;
}

#else  // without CUDA there is nothing to capture

struct StepGraph::Impl {};

absl::Status CheckStepGraph(const torch::Device& device) {
  return absl::InvalidArgumentError(
      absl::StrCat("compile.enable: CUDA graphs need a build with CUDA; the run is on ", device.str()));
}

StepGraph::StepGraph(const Options&) {}
StepGraph::~StepGraph() = default;

StepOutput StepGraph::Run(const Batch& batch, bool, const StepFn& step) {
  return step(batch);
}

int64_t StepGraph::replays() const {
  return 0;
}

#endif

}  // namespace athanor
