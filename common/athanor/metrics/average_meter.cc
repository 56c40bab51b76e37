#include "athanor/metrics/average_meter.h"

#include <limits>

namespace athanor {
namespace {

torch::ScalarType SumType(const torch::Device& device) {
  return device.is_mps() ? torch::kFloat32 : torch::kFloat64;
}

}  // namespace

void AverageMeters::Register(const std::string& name) {
  meters_.try_emplace(name);
}

void AverageMeters::Update(const std::string& name, const torch::Tensor& value, double weight) {
  const torch::NoGradGuard no_grad;
  Meter& meter = meters_[name];
  if (!(weight > 0)) return;
  meter.weight += weight;
  const torch::Tensor one = value.detach().reshape({}).to(device_, /*non_blocking=*/true);
  if (!meter.sum.defined())
    meter.sum = torch::zeros({}, torch::TensorOptions().dtype(SumType(device_)).device(device_));
  meter.sum.add_(one, weight);
}

void AverageMeters::Update(const std::string& name, double value, double weight) {
  Meter& meter = meters_[name];
  if (!(weight > 0)) return;
  meter.weight += weight;
  meter.host_sum += value * weight;
}

std::vector<std::string> AverageMeters::names() const {
  std::vector<std::string> names;
  for (const auto& [name, meter] : meters_) names.push_back(name);
  return names;
}

torch::Tensor AverageMeters::Pack() const {
  const torch::NoGradGuard no_grad;
  const auto count = static_cast<int64_t>(meters_.size());
  torch::Tensor host = torch::zeros({count, 2}, torch::kFloat64);
  auto rows = host.accessor<double, 2>();
  int64_t row = 0;
  for (const auto& [name, meter] : meters_) {
    rows[row][0] = meter.host_sum;
    rows[row++][1] = meter.weight;
  }
  torch::Tensor packed = host.to(torch::TensorOptions().dtype(SumType(device_)).device(device_));
  row = 0;
  for (const auto& [name, meter] : meters_) {
    if (meter.sum.defined()) packed[row][0].add_(meter.sum);
    ++row;
  }
  return packed;
}

std::map<std::string, double> AverageMeters::Read(const torch::Tensor& packed) const {
  const torch::Tensor host = packed.to(torch::kCPU, torch::kFloat64).contiguous();
  TORCH_CHECK(host.dim() == 2 && host.size(0) == static_cast<int64_t>(meters_.size()) && host.size(1) == 2,
              "packed meters: found ", host.sizes(), "; allowed: [", meters_.size(), ", 2]");
  const auto rows = host.accessor<double, 2>();
  std::map<std::string, double> means;
  int64_t row = 0;
  for (const auto& [name, meter] : meters_) {
    means[name] = rows[row][1] > 0 ? rows[row][0] / rows[row][1] : std::numeric_limits<double>::quiet_NaN();
    ++row;
  }
  return means;
}

void AverageMeters::Reset() {
  for (auto& [name, meter] : meters_) {
    if (meter.sum.defined()) meter.sum.zero_();
    meter.host_sum = 0;
    meter.weight = 0;
  }
}

}  // namespace athanor
