// Ragged batches three ways: NestedTensor, the padded batch (with and without a mask on the result) and ATen's own
// nested tensors; the same operation, one thread, taking turns in an order that moves on from round to round. Lengths
// are drawn from a distribution so that padding is about `padding` of the padded batch:
//
//   uniform      evenly between 1 and twice the mean
//   long_tailed  log-normal (sigma 1): many short ones, few long ones
//   bimodal      half of them short (a quarter of the mean), half long
//
//   bench_nested_tensor '{"batch": 32, "longest": 128, "width": 256, "padding": 0.5, "lengths": "uniform"}'
//
// Memory is what the CPU allocator hands out at the same time during forward and backward, beyond what is there before:
// of ours, of torch's function on the bare packed values (what the packed data needs) and of the padded batch.
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <mutex>
#include <unordered_map>

#include "absl/status/status.h"
#include "athanor/nested/ops/arithmetic.h"
#include "athanor/nested/ops/layers.h"
#include "bench/programs/program.h"

namespace athanor::bench {
namespace {

using torch::Tensor;

// Counts what it hands out while it is installed. Its blocks may outlive that. (ATen wants the pointer alone to say
// what to free, so the sizes lie beside.)
class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* data = c10::alloc_cpu(bytes);
    const std::lock_guard<std::mutex> lock(mutex_);
    sizes_[data] = static_cast<int64_t>(bytes);
    current_ += static_cast<int64_t>(bytes);
    peak_ = std::max(peak_, current_);
    return {data, data, &Free, torch::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

  // The most bytes at one time while `run` runs.
  int64_t Peak(const std::function<void()>& run) {
    run();  // what is made once and kept is not this operation's
    c10::Allocator* before = c10::GetCPUAllocator();
    current_ = peak_ = 0;
    c10::SetCPUAllocator(this, /*priority=*/1);
    run();
    c10::SetCPUAllocator(before, /*priority=*/1);
    return peak_;
  }

 private:
  static void Free(void* data);

  std::mutex mutex_;
  std::unordered_map<void*, int64_t> sizes_;
  int64_t current_ = 0, peak_ = 0;
};

CountingAllocator& Counting() {
  static auto* allocator = new CountingAllocator();
  return *allocator;
}

void CountingAllocator::Free(void* data) {
  CountingAllocator& all = Counting();
  const std::lock_guard<std::mutex> lock(all.mutex_);
  const auto found = all.sizes_.find(data);
  if (found != all.sizes_.end()) {
    all.current_ -= found->second;
    all.sizes_.erase(found);
  }
  c10::free_cpu(data);
}

int64_t PeakBytes(const std::function<void()>& run) {
  return Counting().Peak(run);
}

// Lengths of 1..longest whose mean is about (1 - padding) of the longest.
absl::StatusOr<std::vector<int64_t>> Lengths(int64_t batch, int64_t longest, double padding, const std::string& kind) {
  const double mean = static_cast<double>(longest) * (1 - padding);
  std::function<double()> draw;
  if (kind == "uniform") {
    draw = [] { return 2 * torch::rand({}).item<double>(); };
  } else if (kind == "long_tailed") {
    draw = [] { return std::exp(torch::randn({}).item<double>()); };
  } else if (kind == "bimodal") {
    draw = [] { return torch::rand({}).item<double>() < 0.5 ? 0.25 : 1.75; };
  } else {
    return absl::InvalidArgumentError("lengths must be uniform, long_tailed or bimodal, got " + kind);
  }
  std::vector<double> shares;
  for (int64_t i = 0; i < batch; ++i) shares.push_back(draw());
  const auto lengths_for = [&](double scale) {
    std::vector<int64_t> lengths;
    for (const double share : shares) {
      lengths.push_back(std::clamp<int64_t>(std::llround(scale * share), 1, longest));
    }
    lengths[0] = longest;
    return lengths;
  };
  // The ends cut some off: the scale that gives the mean all the same.
  double low = 0, high = 100 * static_cast<double>(longest);
  for (int i = 0; i < 60; ++i) {
    const double scale = (low + high) / 2;
    int64_t sum = 0;
    for (const int64_t length : lengths_for(scale)) sum += length;
    (static_cast<double>(sum) < mean * static_cast<double>(batch) ? low : high) = scale;
  }
  return lengths_for(high);
}

struct Setting {
  std::vector<Tensor> elements;
  NestedTensor ours;
  Tensor padded, mask, aten;  // mask: B x L x 1, float
  Tensor weight, bias, gain;
};

Setting MakeSetting(const std::vector<int64_t>& lengths, int64_t width) {
  Setting s;
  for (const int64_t length : lengths) s.elements.push_back(torch::randn({length, width}));
  s.ours = NestedTensor(s.elements);
  s.padded = s.ours.tensor().clone();
  s.mask = s.ours.mask().unsqueeze(-1).to(torch::kFloat32);
  s.aten = s.ours.ToTorchNested().detach();
  s.weight = torch::randn({width, width}).mul_(0.05).requires_grad_();
  s.bias = torch::zeros({width}).requires_grad_();
  s.gain = torch::ones({width}).requires_grad_();
  return s;
}

struct Operation {
  const char* name;
  std::function<Tensor(const Setting&, Tensor)> packed;  // of the packed values, through NestedTensor
  std::function<Tensor(const Setting&, Tensor)> dense;  // of the bare packed values, the padded or ATen's nested tensor
};

std::vector<Operation> Operations() {
  const auto pointwise = [](const Setting&, const Tensor& x) { return torch::gelu(x * 2); };
  const auto norm = [](const Setting& s, const Tensor& x) {
    return torch::layer_norm(x, {s.gain.size(0)}, s.gain, s.bias);
  };
  const auto linear = [](const Setting& s, const Tensor& x) { return torch::linear(x, s.weight, s.bias); };
  return {{"pointwise",
           [](const Setting& s, Tensor x) { return nested::gelu(s.ours.WithValues(std::move(x)) * 2).values(); },
           pointwise},
          {"layer_norm",
           [](const Setting& s, Tensor x) {
             return nested::layer_norm(s.ours.WithValues(std::move(x)), {s.gain.size(0)}, s.gain, s.bias).values();
           },
           norm},
          {"linear",
           [](const Setting& s, Tensor x) {
             return nested::linear(s.ours.WithValues(std::move(x)), s.weight, s.bias).values();
           },
           linear}};
}

// The seconds of each way in turn, beginning with another one in every round.
std::map<std::string, std::vector<double>> InTurns(
    const std::vector<std::pair<std::string, std::function<void()>>>& ways, int64_t rounds) {
  std::map<std::string, std::vector<double>> seconds;
  for (int64_t round = -2; round < rounds; ++round) {  // two to warm up
    for (size_t i = 0; i < ways.size(); ++i) {
      const auto& [name, run] = ways[(i + static_cast<size_t>(round + 2)) % ways.size()];
      const auto began = Clock::now();
      run();
      if (round >= 0) seconds[name].push_back(SecondsSince(began));
    }
  }
  return seconds;
}

nlohmann::json Measure(const Setting& s, const Operation& operation, int64_t rounds) {
  const Tensor packed = s.ours.values().detach().clone().requires_grad_();
  const Tensor padded = s.padded.detach().clone().requires_grad_();
  const auto backward = [](const Tensor& result, const Tensor& leaf) {
    result.sum().backward();
    leaf.mutable_grad().reset();
  };
  const auto ours = [&] { backward(operation.packed(s, packed), packed); };
  const auto bare = [&] { backward(operation.dense(s, padded), padded); };
  const auto masked = [&] { backward(operation.dense(s, padded) * s.mask, padded); };
  const auto forward = [&](const std::function<Tensor()>& run) {
    return [run] {
      const torch::NoGradGuard no_grad;
      run();
    };
  };
  nlohmann::json result = InTurns({{"ours", ours}, {"padded_bare", bare}, {"padded", masked}}, rounds);
  // ATen's nested tensors lack some backwards: forward passes are compared.
  for (auto& [name, times] : InTurns({{"ours_forward", forward([&] { return operation.packed(s, packed); })},
                                      {"aten_forward", forward([&] { return operation.dense(s, s.aten); })}},
                                     rounds)) {
    result[name] = times;
  }
  result["peak_bytes"] = {{"ours", PeakBytes(ours)},
                          {"needed", PeakBytes([&] { backward(operation.dense(s, packed), packed); })},
                          {"padded", PeakBytes(bare)}};
  return result;
}

absl::StatusOr<nlohmann::json> Run(const nlohmann::json& settings) {
  torch::set_num_threads(1);
  torch::manual_seed(1);
  const auto lengths = Lengths(settings["batch"], settings["longest"], settings["padding"], settings["lengths"]);
  if (!lengths.ok()) return lengths.status();
  const Setting s = MakeSetting(*lengths, settings["width"]);
  nlohmann::json result = {{"occupancy", s.ours.occupancy()},
                           {"packed_bytes", s.ours.values().nbytes()},
                           {"padded_bytes", s.padded.nbytes()}};
  for (const Operation& operation : Operations())
    result["operations"][operation.name] = Measure(s, operation, settings["rounds"]);
  return result;
}

}  // namespace
}  // namespace athanor::bench

int main(int argc, char** argv) {
  return athanor::bench::Main(
      argc, argv,
      {{"batch", 32}, {"longest", 128}, {"width", 256}, {"padding", 0.5}, {"lengths", "uniform"}, {"rounds", 20}},
      athanor::bench::Run);
}
