#include "athanor/runner/step/model_average.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/torch/module_tensors.h"

namespace athanor {

ModelAverage::ModelAverage(const torch::nn::Module& model, double decay) : decay_(decay) {
  torch::NoGradGuard no_grad;
  const std::map<std::string, std::vector<std::string>> tied = TiedNames(model);
  for (const auto& [name, parameter] : DistinctParameters(model)) {
    std::vector<std::string> names = {name};
    if (const auto others = tied.find(name); others != tied.end())
      names.insert(names.end(), others->second.begin(), others->second.end());
    names_.push_back(std::move(names));
    parameters_.push_back(parameter);
    averages_.push_back(parameter.detach().clone());
  }
}

void ModelAverage::Update() {
  torch::NoGradGuard no_grad;
  at::_foreach_lerp_(averages_, parameters_, 1.0 - decay_);
}

void ModelAverage::CopyFromModel() {
  torch::NoGradGuard no_grad;
  for (size_t i = 0; i < averages_.size(); ++i) averages_[i].copy_(parameters_[i]);
}

void ModelAverage::Store(TensorMap* out) const {
  for (size_t i = 0; i < names_.size(); ++i) {
    for (const std::string& name : names_[i]) (*out)["ema." + name] = averages_[i];
  }
}

absl::Status ModelAverage::Load(const TensorMap& tensors) {
  torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> found;
  for (size_t i = 0; i < names_.size(); ++i) {
    torch::Tensor tensor;
    for (const std::string& name : names_[i]) {
      const auto one = tensors.find("ema." + name);
      if (one != tensors.end() && !tensor.defined()) tensor = one->second;
    }
    const std::string& name = names_[i].front();
    if (!tensor.defined()) return absl::DataLossError(absl::StrCat("checkpoint: no tensor ema.", name));
    if (tensor.sizes() != averages_[i].sizes()) {
      return absl::InvalidArgumentError(absl::StrCat("checkpoint: ema.", name, " is ", c10::str(tensor.sizes()),
                                                     ", the model's is ", c10::str(averages_[i].sizes())));
    }
    found.push_back(std::move(tensor));
  }
  for (size_t i = 0; i < found.size(); ++i) averages_[i].copy_(found[i]);
  return absl::OkStatus();
}

// Everything is kept before anything is written: parameters may share memory.
ModelAverage::Swap::Swap(ModelAverage* average) : average_(average) {
  if (average_ == nullptr) return;
  torch::NoGradGuard no_grad;
  for (const torch::Tensor& parameter : average_->parameters_) kept_.push_back(parameter.detach().clone());
  for (size_t i = 0; i < kept_.size(); ++i) average_->parameters_[i].copy_(average_->averages_[i]);
}

ModelAverage::Swap::~Swap() {
  if (average_ == nullptr) return;
  torch::NoGradGuard no_grad;
  for (size_t i = 0; i < kept_.size(); ++i) average_->parameters_[i].copy_(kept_[i]);
}

}  // namespace athanor
