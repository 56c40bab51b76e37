#include "athanor/runner/step_graph.h"

#include <algorithm>
#include <utility>

namespace athanor {
namespace {

constexpr int64_t kWarmupOfExchange = 11;  // the reducer settles its buckets, NCCL its connections

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

}  // namespace

StepGraph::StepGraph(std::shared_ptr<DeviceGraphs> graphs, const Options& options)
    : graphs_(std::move(graphs)), options_(options) {
  if (options.exchanges) options_.warmup = std::max(options.warmup, kWarmupOfExchange);
}

StepGraph::~StepGraph() = default;

StepGraph::Key StepGraph::KeyOf(const Batch& batch, bool window_ends) {
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

StepOutput StepGraph::Run(const Batch& batch, bool window_ends, const StepFn& step) {
  if (batch.ragged.has_value()) return step(batch);  // hardly two batches are alike
  const Key key = KeyOf(batch, window_ends);
  auto found = captured_.find(key);
  if (found == captured_.end()) {
    if (captured_.size() >= kMaxGraphs) return step(batch);
    found = captured_.emplace(key, Captured{GraphedWork(graphs_, options_.warmup), {}, {}}).first;
  }
  Captured& one = found->second;
  if (one.work.captured()) {
    if (batch.input.defined()) one.batch.input.copy_(batch.input, /*non_blocking=*/true);
    if (batch.target.defined()) one.batch.target.copy_(batch.target, /*non_blocking=*/true);
  } else {
    one.batch = batch;
    if (one.work.captures_next()) {
      one.batch.input = Copied(batch.input);
      one.batch.target = Copied(batch.target);
    }
  }
  one.work.Run([&] { one.output = step(one.batch); });
  if (one.work.captured()) return Copied(one.output);
  one.batch = Batch();
  return std::exchange(one.output, StepOutput());
}

int64_t StepGraph::replays() const {
  int64_t sum = 0;
  for (const auto& [key, one] : captured_) sum += one.work.replays();
  return sum;
}

}  // namespace athanor
