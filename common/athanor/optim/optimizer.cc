#include "athanor/optim/optimizer.h"

#include "athanor/optim/gradients.h"

namespace athanor {

std::vector<torch::Tensor> Optimizer::Work::Slot(const std::string& slot, double initial) const {
  std::vector<torch::Tensor> tensors;
  tensors.reserve(parameters.size());
  for (Parameter* parameter : parameters) {
    torch::Tensor& state = parameter->slots[slot];
    if (!state.defined()) state = torch::full_like(parameter->tensor, initial).detach();
    tensors.push_back(state);
  }
  return tensors;
}

std::vector<torch::Tensor> Optimizer::Work::StepTensors() const {
  const auto options = torch::TensorOptions().dtype(torch::kFloat32).device(values.front().device());
  return std::vector<torch::Tensor>(values.size(), torch::full({}, static_cast<double>(steps), options));
}

std::vector<Optimizer::Work> Optimizer::Divide(Group* group) {
  std::vector<Work> works;
  for (Parameter& parameter : group->parameters) {
    torch::Tensor grad = parameter.tensor.grad();
    if (!grad.defined()) continue;
    TORCH_CHECK(!grad.is_sparse(), "the gradient of ", parameter.name, " is sparse; allowed: dense");
    ++parameter.steps;
    // The fused CPU kernels walk raw memory: a gradient laid out otherwise than its parameter would be applied to the
    // wrong elements.
    if (grad.strides() != parameter.tensor.strides()) grad = torch::empty_like(parameter.tensor).copy_(grad);
    Work* work = nullptr;
    for (Work& candidate : works) {
      const torch::Tensor& first = candidate.values.front();
      if (candidate.steps == parameter.steps && first.device() == parameter.tensor.device() &&
          first.scalar_type() == parameter.tensor.scalar_type()) {
        work = &candidate;
        break;
      }
    }
    if (work == nullptr) {
      work = &works.emplace_back();
      work->steps = parameter.steps;
    }
    work->parameters.push_back(&parameter);
    work->values.push_back(parameter.tensor);
    work->grads.push_back(std::move(grad));
  }
  return works;
}

void Optimizer::Step() {
  const torch::NoGradGuard no_grad;
  for (Group& group : groups_) {
    for (const Work& work : Divide(&group)) Update(group.options, work);
  }
}

torch::Tensor Optimizer::Step(const LossClosure& closure) {
  ZeroGrad();
  torch::Tensor loss;
  {
    const torch::AutoGradMode grad(true);
    loss = closure();
  }
  Step();
  return loss;
}

void Optimizer::ZeroGrad() {
  ZeroGradients(parameters_);
}

std::vector<std::string> Optimizer::group_parameters(size_t group) const {
  std::vector<std::string> names;
  for (const Parameter& parameter : groups_[group].parameters) names.push_back(parameter.name);
  return names;
}

bool Optimizer::SetMomentum(size_t group, double momentum) {
  double* place = MomentumOf(&groups_[group].options);
  if (place != nullptr) *place = momentum;
  return place != nullptr;
}

}  // namespace athanor
