#include "athanor/runner/model_average.h"

#include "absl/strings/str_cat.h"

namespace athanor {

ModelAverage::ModelAverage(const torch::nn::Module& model, double decay) : decay_(decay) {
  torch::NoGradGuard no_grad;
  for (const auto& item : model.named_parameters()) {
    names_.push_back(item.key());
    parameters_.push_back(item.value());
    averages_.push_back(item.value().detach().clone());
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
  for (size_t i = 0; i < names_.size(); ++i) (*out)["ema." + names_[i]] = averages_[i];
}

absl::Status ModelAverage::Load(const TensorMap& tensors) {
  torch::NoGradGuard no_grad;
  for (size_t i = 0; i < names_.size(); ++i) {
    const auto found = tensors.find("ema." + names_[i]);
    if (found == tensors.end()) return absl::DataLossError(absl::StrCat("checkpoint: no tensor ema.", names_[i]));
    if (found->second.sizes() != averages_[i].sizes()) {
      return absl::InvalidArgumentError(absl::StrCat("checkpoint: ema.", names_[i], " is ",
                                                     c10::str(found->second.sizes()), ", the model's is ",
                                                     c10::str(averages_[i].sizes())));
    }
    averages_[i].copy_(found->second);
  }
  return absl::OkStatus();
}

ModelAverage::Swap::Swap(ModelAverage* average) : average_(average) {
  if (average_ == nullptr) return;
  torch::NoGradGuard no_grad;
  for (size_t i = 0; i < average_->parameters_.size(); ++i) {
    kept_.push_back(average_->parameters_[i].detach().clone());
    average_->parameters_[i].copy_(average_->averages_[i]);
  }
}

ModelAverage::Swap::~Swap() {
  if (average_ == nullptr) return;
  torch::NoGradGuard no_grad;
  for (size_t i = 0; i < kept_.size(); ++i) average_->parameters_[i].copy_(kept_[i]);
}

}  // namespace athanor
