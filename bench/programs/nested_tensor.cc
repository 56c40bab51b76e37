// Ragged batches three ways: NestedTensor, the padded batch with a mask, and ATen's own nested tensors; forward and
// backward of the same operation, one thread, taking turns. Lengths are drawn so that padding would be about
// `padding` of the padded batch.
//
//   bench_nested_tensor '{"batch": 32, "longest": 128, "width": 256, "padding": 0.5, "rounds": 20}'
#include <torch/torch.h>

#include <functional>

#include "athanor/tensor/nested_arithmetic.h"
#include "athanor/tensor/nested_nn.h"
#include "bench/programs/program.h"

namespace athanor::bench {
namespace {

using torch::Tensor;

struct Setting {
  std::vector<Tensor> elements;
  NestedTensor ours;
  Tensor padded, mask, aten;  // mask: B x L x 1, float
  Tensor weight, bias, gain;
};

Setting MakeSetting(int64_t batch, int64_t longest, int64_t width, double padding) {
  torch::manual_seed(1);
  Setting s;
  const auto mean = static_cast<double>(longest) * (1 - padding);
  for (int64_t i = 0; i < batch; ++i) {
    const double share = 2 * mean * torch::rand({}).item<double>();
    const int64_t length = i == 0 ? longest : std::clamp<int64_t>(static_cast<int64_t>(share), 1, longest);
    s.elements.push_back(torch::randn({length, width}));
  }
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
  std::function<Tensor(const Setting&, Tensor)> packed;  // of the packed values
  std::function<Tensor(const Setting&, Tensor)> dense;   // of the padded or ATen's nested tensor
};

std::vector<Operation> Operations() {
  const auto pointwise = [](const Setting&, const Tensor& x) { return torch::gelu(x * 2); };
  const auto norm = [](const Setting& s, const Tensor& x) {
    return torch::layer_norm(x, {x.size(-1)}, s.gain, s.bias);
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

double Seconds(const std::function<void()>& run) {
  const auto began = Clock::now();
  run();
  return SecondsSince(began);
}

nlohmann::json Measure(const Setting& s, const Operation& operation, int64_t rounds) {
  nlohmann::json samples = {{"ours", nlohmann::json::array()},
                            {"padded", nlohmann::json::array()},
                            {"ours_forward", nlohmann::json::array()},
                            {"aten_forward", nlohmann::json::array()}};
  const Tensor packed = s.ours.values().detach().clone().requires_grad_();
  const Tensor padded = s.padded.detach().clone().requires_grad_();
  for (int64_t round = -2; round < rounds; ++round) {  // two to warm up
    const double ours = Seconds([&] { operation.packed(s, packed).sum().backward(); });
    const double theirs = Seconds([&] { (operation.dense(s, padded) * s.mask).sum().backward(); });
    // ATen's nested tensors lack some backwards: forward passes are compared.
    const torch::NoGradGuard no_grad;
    const double forward = Seconds([&] { operation.packed(s, packed); });
    const double aten = Seconds([&] { operation.dense(s, s.aten); });
    packed.mutable_grad().reset();
    padded.mutable_grad().reset();
    if (round < 0) continue;
    samples["ours"].push_back(ours);
    samples["padded"].push_back(theirs);
    samples["ours_forward"].push_back(forward);
    samples["aten_forward"].push_back(aten);
  }
  return samples;
}

absl::StatusOr<nlohmann::json> Run(const nlohmann::json& settings) {
  torch::set_num_threads(1);
  const Setting s = MakeSetting(settings["batch"], settings["longest"], settings["width"], settings["padding"]);
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
  return athanor::bench::Main(argc, argv,
                              {{"batch", 32}, {"longest", 128}, {"width", 256}, {"padding", 0.5}, {"rounds", 20}},
                              athanor::bench::Run);
}
