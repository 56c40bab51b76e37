// Weighted running means that stay on the device until somebody reads them.
//
//   AverageMeters meters(device);
//   meters.Update("loss", output.loss, batch.size);        // no synchronisation
//   torch::Tensor packed = meters.Pack();                   // N x 2: (sum, weight); all-reduce with SUM over the ranks
//   std::map<std::string, double> means = meters.Read(packed);  // one device read for all
//   meters.Reset();
//
// Sums are float64 (float32 on devices without it). A weight of 0 adds nothing, even if the value is NaN. Not
// thread-safe.
#pragma once

#include <torch/torch.h>

#include <map>
#include <string>
#include <vector>

namespace athanor {

class AverageMeters {
 public:
  explicit AverageMeters(torch::Device device = torch::kCPU) : device_(device) {}

  // `value`: 0-dim (or one element), detached here. A weight <= 0 is ignored, but the name is registered.
  void Update(const std::string& name, const torch::Tensor& value, double weight = 1);
  void Update(const std::string& name, double value, double weight = 1);

  // Names, sorted: the rows of Pack(). Ranks must have seen the same names before they reduce: Register() what some may
  // lack.
  std::vector<std::string> names() const;
  void Register(const std::string& name);

  torch::Tensor Pack() const;  // a new tensor on the device, names() x 2, float64 (float32 on MPS)
  // The means of packed (default: own) sums; NaN for a name without weight. Waits for the device.
  std::map<std::string, double> Read(const torch::Tensor& packed) const;
  std::map<std::string, double> Read() const { return Read(Pack()); }

  // Forgets the sums, keeps the names.
  void Reset();

 private:
  struct Meter {
    torch::Tensor sum;  // on the device; undefined until a tensor value came
    double host_sum = 0;
    double weight = 0;
  };
  torch::Device device_;
  std::map<std::string, Meter> meters_;
};

}  // namespace athanor
