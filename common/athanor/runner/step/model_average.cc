#include "athanor/runner/step/model_average.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/parallel/strategies/replicate_strategy.h"
#include "athanor/runner/state/divided_state.h"
#include "athanor/torch/module_tensors.h"

namespace athanor {

ModelAverage::ModelAverage(const torch::nn::Module& model, double decay)
    : ModelAverage(model, ReplicateStrategy(&model, {}).owned(), decay) {}

ModelAverage::ModelAverage(const torch::nn::Module& model, std::vector<OwnedParameter> owned, double decay)
    : decay_(decay), owned_(std::move(owned)) {
  torch::NoGradGuard no_grad;
  const std::map<std::string, std::vector<std::string>> tied = TiedNames(model);
  for (const OwnedParameter& one : owned_) {
    std::vector<std::string> names = {one.name};
    if (const auto others = tied.find(one.name); others != tied.end())
      names.insert(names.end(), others->second.begin(), others->second.end());
    names_.push_back(std::move(names));
    parameters_.push_back(one.value);
    averages_.push_back(one.value.detach().clone());
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

void ModelAverage::Store(TrainingState* out) const {
  for (size_t i = 0; i < names_.size(); ++i) {
    std::vector<std::string> also;
    for (size_t other = 1; other < names_[i].size(); ++other) also.push_back("ema." + names_[i][other]);
    StoreLike(owned_[i], averages_[i], "ema." + names_[i].front(), also, out);
  }
}

absl::Status ModelAverage::Load(const TrainingState& state) {
  torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> found;
  for (size_t i = 0; i < names_.size(); ++i) {
    torch::Tensor tensor;
    for (const std::string& name : names_[i]) {
      if (tensor.defined()) break;
      ASSIGN_OR_RETURN(tensor, FindLike(owned_[i], "ema." + name, state));
    }
    if (!tensor.defined()) return absl::DataLossError(absl::StrCat("checkpoint: no tensor ema.", names_[i].front()));
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
