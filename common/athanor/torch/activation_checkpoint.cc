#include "athanor/torch/activation_checkpoint.h"

#include <ATen/autocast_mode.h>
#ifdef ATHANOR_CUDA
#include <ATen/cuda/CUDAGeneratorImpl.h>
#endif

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace athanor {
namespace {

using Tensors = std::vector<torch::Tensor>;
using Part = std::function<torch::Tensor(const Tensors&)>;

// Random numbers and autocast, as they are now; and back again while it lives.
struct Surroundings {
  explicit Surroundings(c10::DeviceType type)
      : device(type),
        cpu(at::detail::getDefaultCPUGenerator().get_state()),
        autocast(at::autocast::is_autocast_enabled(type)),
        autocast_type(at::autocast::get_autocast_dtype(type)) {
#ifdef ATHANOR_CUDA
    if (type == c10::DeviceType::CUDA) cuda = at::cuda::detail::getDefaultCUDAGenerator().get_state();
#endif
  }
  void Restore() const {
    at::Generator generator = at::detail::getDefaultCPUGenerator();
    generator.set_state(cpu);
#ifdef ATHANOR_CUDA
    if (cuda.defined()) {
      at::Generator of_device = at::cuda::detail::getDefaultCUDAGenerator();
      of_device.set_state(cuda);
    }
#endif
    at::autocast::set_autocast_enabled(device, autocast);
    at::autocast::set_autocast_dtype(device, autocast_type);
  }

  const c10::DeviceType device;
  const torch::Tensor cpu;
  torch::Tensor cuda;
  const bool autocast;
  const at::ScalarType autocast_type;
};

class Again {
 public:
  explicit Again(const Surroundings& then) : now_(then.device) {
    at::autocast::increment_nesting();
    then.Restore();
  }
  ~Again() {
    // Casts of weights are kept within one autocast: those of the second run end with it.
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    now_.Restore();
  }
  Again(const Again&) = delete;

 private:
  const Surroundings now_;
};

struct Held : torch::CustomClassHolder {
  Held(Part of, c10::DeviceType device) : part(std::move(of)), then(device) {}
  const Part part;
  const Surroundings then;
};

// A node without it, whose inputs need no gradient, would train nothing.
torch::Tensor Anchor() {
  static thread_local const torch::Tensor anchor = torch::zeros({0}, torch::requires_grad());
  return anchor;
}

struct Rerun : torch::autograd::Function<Rerun> {
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const torch::Tensor&, const Part& part,
                               at::TensorList inputs) {
    const c10::DeviceType device = inputs.empty() ? c10::DeviceType::CPU : inputs.front().device().type();
    context->saved_data["held"] = torch::IValue::make_capsule(c10::make_intrusive<Held>(part, device));
    context->save_for_backward(inputs.vec());
    return part(inputs.vec());
  }

  static Tensors backward(torch::autograd::AutogradContext* context, const Tensors& gradients) {
    const auto capsule = context->saved_data.at("held").toCapsule();
    const auto& held = static_cast<const Held&>(*capsule);
    Tensors inputs;
    for (const torch::Tensor& saved : context->get_saved_variables())
      inputs.push_back(saved.defined() ? saved.detach().requires_grad_(saved.requires_grad()) : saved);
    torch::Tensor output;
    {
      const torch::AutoGradMode with_gradients(true);
      const Again again(held.then);
      output = held.part(inputs);
    }
    torch::autograd::backward({output}, {gradients[0]});
    Tensors results(2);  // of the anchor and the part
    for (const torch::Tensor& input : inputs) results.push_back(input.defined() ? input.grad() : torch::Tensor());
    return results;
  }
};

// Stands in a Sequential's list for one of its children, which stays the registered one.
struct CheckpointedChild : torch::nn::Module {
  explicit CheckpointedChild(torch::nn::AnyModule of) : child(std::move(of)) {}
  torch::Tensor forward(const torch::Tensor& input) {
    return Checkpointed([this](const Tensors& inputs) { return child.forward(inputs[0]); }, {input});
  }
  torch::nn::AnyModule child;
};

}  // namespace

torch::Tensor Checkpointed(Part part, const Tensors& inputs) {
  if (!torch::GradMode::is_enabled()) return part(inputs);
  return Rerun::apply(Anchor(), part, at::TensorList(inputs));
}

absl::StatusOr<int64_t> CheckpointChildren(torch::nn::Module& model, const std::vector<std::string>& names,
                                           int64_t every) {
  std::vector<std::pair<std::string, torch::nn::SequentialImpl*>> lists;
  if (auto* const list = dynamic_cast<torch::nn::SequentialImpl*>(&model)) lists.emplace_back("", list);
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    auto* const list = dynamic_cast<torch::nn::SequentialImpl*>(item.value().get());
    if (list == nullptr) continue;
    const bool within = std::any_of(lists.begin(), lists.end(), [&](const auto& outer) {
      return outer.first.empty() || absl::StartsWith(item.key(), absl::StrCat(outer.first, "."));
    });
    if (!names.empty() || !within) lists.emplace_back(item.key(), list);
  }
  int64_t count = 0;
  for (const std::string& name : names) {
    if (std::any_of(lists.begin(), lists.end(), [&](const auto& list) { return list.first == name; })) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "found \"", name, "\"; allowed: a torch::nn::Sequential of the model: ",
        absl::StrJoin(lists, ", ", [](std::string* text, const auto& list) { absl::StrAppend(text, list.first); })));
  }
  for (const auto& [name, list] : lists) {
    if (!names.empty() && std::find(names.begin(), names.end(), name) == names.end()) continue;
    int64_t index = 0;
    for (torch::nn::AnyModule& child : *list) {
      if (index++ % every != 0) continue;
      child = torch::nn::AnyModule(std::make_shared<CheckpointedChild>(child));
      ++count;
    }
  }
  return count;
}

}  // namespace athanor
