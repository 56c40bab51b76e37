// Adadelta, Adamax, averaged SGD and Rprop; formulas as in torch.optim.
#include <algorithm>
#include <cmath>

#include "athanor/optim/kinds/optimizer_kinds.h"

namespace athanor {
namespace {

using Tensors = std::vector<torch::Tensor>;

// The L2 term in the gradients.
Tensors Penalized(const OptimGroupOptions& o, const Tensors& values, const Tensors& grads) {
  return o.weight_decay == 0 ? grads : Tensors(at::_foreach_add(grads, values, o.weight_decay));
}

class Adadelta final : public Optimizer {
 public:
  Adadelta() : Optimizer("adadelta") {}

 private:
  void Update(const OptimGroupOptions& o, const Work& work) override {
    const Tensors squares = work.Slot("square_avg"), deltas = work.Slot("acc_delta");
    const Tensors grads = Penalized(o, work.values, work.grads);
    at::_foreach_mul_(squares, o.rho);
    at::_foreach_addcmul_(squares, grads, grads, 1 - o.rho);
    Tensors deviation = at::_foreach_add(squares, o.eps), change = at::_foreach_add(deltas, o.eps);
    at::_foreach_sqrt_(deviation);
    at::_foreach_sqrt_(change);
    at::_foreach_div_(change, deviation);
    at::_foreach_mul_(change, grads);
    at::_foreach_mul_(deltas, o.rho);
    at::_foreach_addcmul_(deltas, change, change, 1 - o.rho);
    at::_foreach_add_(work.values, change, -o.lr);
  }
  std::vector<std::string> SlotNames() const override { return {"square_avg", "acc_delta"}; }
  std::vector<std::string> RequiredSlots(at::IntArrayRef) const override { return SlotNames(); }
  double* MomentumOf(OptimGroupOptions*) const override { return nullptr; }
};

class Adamax final : public Optimizer {
 public:
  Adamax() : Optimizer("adamax") {}

 private:
  void Update(const OptimGroupOptions& o, const Work& work) override {
    const Tensors mean = work.Slot("exp_avg"), highest = work.Slot("exp_inf");
    const Tensors grads = Penalized(o, work.values, work.grads);
    at::_foreach_lerp_(mean, grads, 1 - o.beta1);
    Tensors magnitude = at::_foreach_abs(grads);
    at::_foreach_add_(magnitude, o.eps);
    at::_foreach_mul_(highest, o.beta2);
    at::_foreach_maximum_(highest, magnitude);
    const double correction = 1 - std::pow(o.beta1, static_cast<double>(work.steps));
    at::_foreach_addcdiv_(work.values, mean, highest, at::Scalar(-o.lr / correction));
  }
  std::vector<std::string> SlotNames() const override { return {"exp_avg", "exp_inf"}; }
  std::vector<std::string> RequiredSlots(at::IntArrayRef) const override { return SlotNames(); }
  double* MomentumOf(OptimGroupOptions* options) const override { return &options->beta1; }
};

// The averaged weights are the state "ax"; the rate of an update is that of its own learning rate.
class Asgd final : public Optimizer {
 public:
  Asgd() : Optimizer("asgd") {}

 private:
  void Update(const OptimGroupOptions& o, const Work& work) override {
    const Tensors averages = work.Slot("ax");
    const Tensors grads = Penalized(o, work.values, work.grads);
    const double before = static_cast<double>(work.steps - 1);
    const double eta = o.lr / std::pow(1 + o.lambd * o.lr * before, o.alpha);
    at::_foreach_mul_(work.values, 1 - o.lambd * eta);
    at::_foreach_add_(work.values, grads, -eta);
    const double share = 1 / std::max(1.0, before - o.t0);
    if (share == 1) {
      at::_foreach_copy_(averages, work.values);
    } else {
      at::_foreach_lerp_(averages, work.values, share);
    }
  }
  std::vector<std::string> SlotNames() const override { return {"ax"}; }
  std::vector<std::string> RequiredSlots(at::IntArrayRef) const override { return SlotNames(); }
  double* MomentumOf(OptimGroupOptions*) const override { return nullptr; }
};

class Rprop final : public Optimizer {
 public:
  Rprop() : Optimizer("rprop") {}

 private:
  void Update(const OptimGroupOptions& o, const Work& work) override {
    const Tensors before = work.Slot("prev"), sizes = work.Slot("step_size", o.lr);
    for (size_t i = 0; i < work.values.size(); ++i) {
      const torch::Tensor turn = work.grads[i] * before[i];
      // One factor per element: the direction held, turned, or there was none.
      const torch::Tensor factor =
          torch::where(turn > 0, o.eta_plus, torch::where(turn < 0, o.eta_minus, torch::ones_like(turn)));
      sizes[i].mul_(factor).clamp_(o.step_min, o.step_max);
      const torch::Tensor grad = work.grads[i].masked_fill(turn < 0, 0);  // after a turn: wait for one update
      torch::Tensor(work.values[i]).addcmul_(grad.sign(), sizes[i], -1);
      before[i].copy_(grad);
    }
  }
  std::vector<std::string> SlotNames() const override { return {"prev", "step_size"}; }
  std::vector<std::string> RequiredSlots(at::IntArrayRef) const override { return SlotNames(); }
  double* MomentumOf(OptimGroupOptions*) const override { return nullptr; }
};

}  // namespace

std::unique_ptr<Optimizer> MakeClassicOptimizer(const std::string& type) {
  if (type == "adadelta") return std::make_unique<Adadelta>();
  if (type == "adamax") return std::make_unique<Adamax>();
  if (type == "asgd") return std::make_unique<Asgd>();
  if (type == "rprop") return std::make_unique<Rprop>();
  return nullptr;
}

}  // namespace athanor
