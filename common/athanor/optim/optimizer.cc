#include "athanor/optim/optimizer.h"

#include <algorithm>
#include <bit>
#include <utility>

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
  if (steps_on_device.defined()) return std::vector<torch::Tensor>(values.size(), steps_on_device);
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
    if (parameter.tensor.numel() == 0 && !(parameter.part.has_value() && NeedsWhole())) continue;
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

void Optimizer::UseParts(const std::map<std::string, Part>& parts, std::function<void(torch::Tensor)> sum) {
  sum_ = std::move(sum);
  for (Group& group : groups_) {
    for (Parameter& parameter : group.parameters) {
      if (const auto part = parts.find(parameter.name); part != parts.end()) parameter.part = part->second;
    }
  }
}

at::IntArrayRef Optimizer::ShapeOf(const Parameter& parameter) {
  return parameter.part.has_value() ? at::IntArrayRef(parameter.part->shape) : parameter.tensor.sizes();
}

at::IntArrayRef Optimizer::StateShapeOf(const Parameter& parameter) const {
  return DividesState() ? parameter.tensor.sizes() : ShapeOf(parameter);
}

torch::Tensor Optimizer::Whole(const Parameter& parameter, const torch::Tensor& own) const {
  if (!parameter.part.has_value()) return own;
  torch::Tensor whole = torch::zeros(ShapeOf(parameter), own.options());
  whole.view({-1}).narrow(0, parameter.part->begin, own.numel()).copy_(own);
  SumOverParts(whole);
  return whole;
}

torch::Tensor Optimizer::OwnOf(const Parameter& parameter, const torch::Tensor& whole) {
  if (!parameter.part.has_value()) return whole;
  return whole.reshape({-1}).narrow(0, parameter.part->begin, parameter.tensor.numel());
}

void Optimizer::Step() {
  Prepare();
  Apply();
}

void Optimizer::Prepare() {
  const torch::NoGradGuard no_grad;
  prepared_.clear();
  for (Group& group : groups_) {
    for (Work& work : Divide(&group)) {
      if (scalars_on_device_) SendScalars(group, prepared_.size(), &work);
      prepared_.push_back({&group, std::move(work)});
    }
  }
}

void Optimizer::Apply() {
  const torch::NoGradGuard no_grad;
  for (auto& [group, work] : std::exchange(prepared_, {})) {
    // The fused CPU kernels walk raw memory: a gradient laid out otherwise than its parameter would be applied to the
    // wrong elements.
    for (size_t i = 0; i < work.grads.size(); ++i) {
      torch::Tensor& grad = work.grads[i];
      if (grad.strides() != work.values[i].strides()) grad = torch::empty_like(work.values[i]).copy_(grad);
    }
    Update(group->options, work);
  }
}

bool Optimizer::KeepScalarsOnDevice() {
  scalars_on_device_ = ReadsScalarsOnDevice();
  return scalars_on_device_;
}

// Filling is a kernel with its number as an argument: nobody waits, and the tensors stay where they are.
void Optimizer::SendScalars(const Group& group, size_t place, Work* work) {
  const torch::Device device = work->values.front().device();
  sent_.resize(std::max(sent_.size(), 2 * (place + 1)));
  torch::Tensor &lr = sent_[2 * place], &steps = sent_[2 * place + 1];
  if (!lr.defined() || lr.device() != device) {
    lr = torch::empty({}, torch::dtype(torch::kFloat32).device(device));
    steps = torch::empty_like(lr);
  }
  work->lr_on_device = lr.fill_(group.options.lr);
  work->steps_on_device = steps.fill_(work->steps);
}

std::vector<uint64_t> Optimizer::Signature() const {
  const auto address = [](const torch::Tensor& tensor) { return reinterpret_cast<uint64_t>(tensor.const_data_ptr()); };
  std::vector<uint64_t> signature = {loads_};
  for (const Prepared& one : prepared_) {
    const double* momentum = MomentumOf(&one.group->options);
    signature.push_back(momentum == nullptr ? 0 : std::bit_cast<uint64_t>(*momentum));
    signature.push_back(one.work.values.size());
    for (size_t i = 0; i < one.work.values.size(); ++i) {
      signature.push_back(address(one.work.values[i]));
      signature.push_back(address(one.work.grads[i]));
    }
  }
  return signature;
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
