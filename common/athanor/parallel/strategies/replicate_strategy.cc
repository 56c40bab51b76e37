#include "athanor/parallel/strategies/replicate_strategy.h"

#include "athanor/base/status_macros.h"
#include "athanor/torch/module_tensors.h"

namespace athanor {

ReplicateStrategy::ReplicateStrategy(const torch::nn::Module* module, const GradientReducerOptions& options)
    : module_(module), options_(options) {
  for (const auto& [name, parameter] : DistinctParameters(*module))
    owned_.push_back({.name = name, .value = parameter, .shape = parameter.sizes().vec(), .parameter = parameter});
}

absl::Status ReplicateStrategy::Reseat(const Membership& members) {
  if (!members.several()) {
    reducer_.reset();
    return absl::OkStatus();
  }
  if (reducer_ != nullptr) return reducer_->Reseat(members);
  ASSIGN_OR_RETURN(reducer_, GradientReducer::Create(*module_, members, options_));
  return absl::OkStatus();
}

// Without preparation the reducer stays out of the way: gradients add up locally.
void ReplicateStrategy::PrepareForBackward(const torch::Tensor& loss, bool last) {
  if (last && reducer_ != nullptr) reducer_->PrepareForBackward(loss);
}

void ReplicateStrategy::FinishBackward(bool last) {
  if (last && reducer_ != nullptr) reducer_->FinishBackward();
}

void ReplicateStrategy::DropGradients() {
  if (reducer_ != nullptr) return reducer_->DropGradients();
  for (OwnedParameter& one : owned_) {
    if (one.value.requires_grad()) one.value.mutable_grad().reset();
  }
}

absl::Status ReplicateStrategy::SyncBuffers() {
  return reducer_ == nullptr ? absl::OkStatus() : reducer_->SyncBuffers();
}

std::vector<torch::Tensor> ReplicateStrategy::Replicated() const {
  return module_->parameters();
}

absl::Status ReplicateStrategy::Gathered(
    const std::function<absl::Status(const std::string&, const torch::Tensor&)>& take) {
  for (const OwnedParameter& one : owned_) RETURN_IF_ERROR(take(one.name, one.value.detach()));
  return absl::OkStatus();
}

}  // namespace athanor
