// Named values in the order in which they were made, and their text.
#pragma once

#include <torch/torch.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace athanor {

// Each value 0-dim or a vector.
using MetricValues = std::vector<std::pair<std::string, torch::Tensor>>;

// State by name.
using TensorMap = std::map<std::string, torch::Tensor>;  // as in checkpoint/training_state.h

// nullptr when there is none of that name.
const torch::Tensor* FindValue(const MetricValues& values, const std::string& name);

// "0.7500" for one number, "nan", and "tensor([0.6667, 0.0000], dtype=torch.float64)" for a vector, as logs of PyTorch
// have it.
std::string ValueText(const torch::Tensor& value, int decimals = 4);

}  // namespace athanor
