#include "athanor/runner/step/step_graph.h"

#include <algorithm>
#include <utility>

namespace athanor {
namespace {

constexpr int64_t kWarmupOfExchange = 11;  // the reducer settles its buckets, NCCL its connections

torch::Tensor Copied(const torch::Tensor& tensor) {
  return tensor.defined() ? tensor.detach().clone() : tensor;
}

NestedValue Copied(const NestedValue& value) {
  return value.is_nested() ? NestedValue(value.nested().detach().clone()) : NestedValue(Copied(value.dense()));
}

StepOutput Copied(const StepOutput& output) {
  StepOutput copy;
  copy.loss = Copied(output.loss);
  copy.weight = Copied(output.weight);
  copy.scores = Copied(output.scores);
  copy.labels = Copied(output.labels);
  for (const auto& [name, value] : output.metrics) copy.metrics[name] = Copied(value);
  for (const auto& [name, task] : output.tasks)
    copy.tasks.emplace(name, ScoredBatch{Copied(task.input), Copied(task.target)});
  return copy;
}

template <class AnyBatch, class Function>
void ForEachTensor(AnyBatch& batch, const Function& function) {
  if (batch.input.defined()) function("input", batch.input);
  if (batch.target.defined()) function("target", batch.target);
  for (auto& [name, tensor] : batch.more) function("more." + name, tensor);
}

}  // namespace

StepGraph::StepGraph(std::shared_ptr<DeviceGraphs> graphs, const Options& options)
    : graphs_(std::move(graphs)), options_(options) {
  if (options.exchanges) options_.warmup = std::max(options.warmup, kWarmupOfExchange);
}

StepGraph::~StepGraph() = default;

StepGraph::Key StepGraph::KeyOf(const Batch& batch, bool window_ends) {
  Key key{.shapes = {}, .size = batch.size, .window_ends = window_ends};
  ForEachTensor(batch, [&](const std::string& name, const torch::Tensor& tensor) {
    std::vector<int64_t>& shape = key.shapes[name];
    shape = tensor.sizes().vec();
    shape.push_back(static_cast<int64_t>(tensor.scalar_type()));
  });
  return key;
}

StepOutput StepGraph::Run(const Batch& batch, bool window_ends, const StepFn& step) {
  if (batch.ragged.has_value() || batch.ragged_target.has_value()) return step(batch);  // hardly two are alike
  const Key key = KeyOf(batch, window_ends);
  auto found = captured_.find(key);
  if (found == captured_.end()) {
    if (captured_.size() >= kMaxGraphs) return step(batch);
    found = captured_.emplace(key, Captured{GraphedWork(graphs_, options_.warmup), {}, {}}).first;
  }
  Captured& one = found->second;
  if (one.work.captured()) {
    std::map<std::string, torch::Tensor> fresh;
    ForEachTensor(batch, [&](const std::string& name, const torch::Tensor& tensor) { fresh[name] = tensor; });
    ForEachTensor(one.batch, [&](const std::string& name, torch::Tensor& tensor) {
      tensor.copy_(fresh.at(name), /*non_blocking=*/true);
    });
  } else {
    one.batch = batch;
    if (one.work.captures_next())
      ForEachTensor(one.batch, [](const std::string&, torch::Tensor& tensor) { tensor = Copied(tensor); });
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
