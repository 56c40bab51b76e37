// Sequences of unequal length without padding: a classifier over ragged batches.
//
//   03_nested_batches [steps]
//
// The task: does a sequence of digits hold more even than odd ones? Lengths are 1 to 40. A plain loop with the
// library's parts: a collated NestedTensor, layers that work on the packed values, attention that never sees padding,
// an optimizer and a metric.
#include <cstdio>
#include <cstdlib>

#include "athanor/base/status_macros.h"
#include "athanor/metrics/metric_factory.h"
#include "athanor/nested/ops/arithmetic.h"
#include "athanor/nested/ops/attention.h"
#include "athanor/nested/ops/layers.h"
#include "athanor/nested/ops/reduce.h"
#include "athanor/nested/pn_tensor.h"
#include "athanor/optim/optimizer.h"

namespace {

using athanor::NestedTensor;
namespace nested = athanor::nested;
namespace nn = torch::nn;

constexpr int64_t kWidth = 32;

struct Ragged {
  NestedTensor digits;  // elements L
  torch::Tensor label;  // B
};

Ragged MakeBatch(int64_t size) {
  std::vector<athanor::PNTensor> samples;
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < size; ++i) {
    const int64_t length = torch::randint(1, 41, {1}).item<int64_t>();
    const torch::Tensor digits = torch::randint(0, 10, {length}, torch::kInt64);
    samples.emplace_back(digits);
    labels.push_back(2 * digits.remainder(2).eq(0).sum().item<int64_t>() > length ? 1 : 0);
  }
  return {athanor::CollateNested(samples), torch::tensor(labels)};
}

struct NetImpl : nn::Module {
  NetImpl() {
    register_module("embedding", embedding);
    register_module("attention", attention);
    register_module("norm", norm);
    register_module("head", head);
  }
  torch::Tensor forward(const NestedTensor& digits) {
    NestedTensor x = nested::embedding(digits, embedding->weight);
    x = x + nested::multi_head_attention(x, x, x, nested::ParametersOf(attention));
    x = nested::Apply(x, [&](const torch::Tensor& rows) { return norm(rows); });
    const torch::Tensor pooled = nested::mean(x, 1).dense();  // over each sequence's own length: B x width
    return head(pooled).squeeze(-1);
  }
  nn::Embedding embedding{10, kWidth};
  nn::MultiheadAttention attention{nn::MultiheadAttentionOptions(kWidth, 4)};
  nn::LayerNorm norm{nn::LayerNormOptions({kWidth})};
  nn::Linear head{kWidth, 1};
};
TORCH_MODULE(Net);

absl::Status Run(int64_t steps) {
  torch::manual_seed(1);
  Net net;
  athanor::NamedTensors parameters;
  for (const auto& item : net->named_parameters()) parameters.emplace_back(item.key(), item.value());
  athanor::OptimConfig config;
  config.type = "adamw";
  config.lr = 3e-3;
  ASSIGN_OR_RETURN(auto optimizer, athanor::MakeOptimizer(config, parameters));
  ASSIGN_OR_RETURN(auto metrics, athanor::BuildMetrics({.type = "binary", .scores = athanor::Scores::kLogits}));
  double padded = 0, real = 0;
  for (int64_t step = 1; step <= steps; ++step) {
    const Ragged batch = MakeBatch(64);
    const torch::Tensor logits = net(batch.digits);
    const torch::Tensor loss = torch::binary_cross_entropy_with_logits(logits, batch.label.to(torch::kFloat32));
    loss.backward();
    optimizer->Step();
    optimizer->ZeroGrad();
    padded += static_cast<double>(batch.digits.len() * batch.digits.size(1));
    real += static_cast<double>(batch.digits.numel());
    if (step > steps - 20) metrics->Update(logits.detach(), batch.label);
    if (step % 100 == 0) std::printf("step %4ld  loss %.4f\n", static_cast<long>(step), loss.item<double>());
  }
  ASSIGN_OR_RETURN(const athanor::MetricValues values, metrics->Average());
  std::printf("padding would have made %.2f x the rows; accuracy %.3f, AUROC %.3f\n", padded / real,
              athanor::FindValue(values, "acc")->item<double>(), athanor::FindValue(values, "auroc")->item<double>());
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  const absl::Status status = Run(argc > 1 ? std::strtoll(argv[1], nullptr, 10) : 400);
  if (status.ok()) return 0;
  std::fprintf(stderr, "03_nested_batches: %s\n", std::string(status.message()).c_str());
  return 1;
}
