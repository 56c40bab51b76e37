// Optimizers of a few foreach kernels per update; formulas as in torch.optim.
#include <algorithm>
#include <cmath>

#include "athanor/optim/kinds/optimizer_kinds.h"

namespace athanor {
namespace {

using Tensors = std::vector<torch::Tensor>;

// Applies the weight decay: to the weights when decoupled, else into the gradients, which are returned.
Tensors Decayed(const OptimGroupOptions& o, bool decoupled, const Tensors& values, const Tensors& grads) {
  if (o.weight_decay == 0) return grads;
  if (!decoupled) return at::_foreach_add(grads, values, o.weight_decay);
  at::_foreach_mul_(values, 1 - o.lr * o.weight_decay);
  return grads;
}

void UpdateMoments(const OptimGroupOptions& o, const Tensors& grads, const Tensors& mean, const Tensors& square) {
  at::_foreach_lerp_(mean, grads, 1 - o.beta1);
  at::_foreach_mul_(square, o.beta2);
  at::_foreach_addcmul_(square, grads, grads, 1 - o.beta2);
}

class NAdam final : public Optimizer {
 public:
  NAdam() : Optimizer("nadam") {}

 private:
  void Update(const OptimGroupOptions& o, const Work& work) override {
    const Tensors mean = work.Slot("exp_avg"), square = work.Slot("exp_avg_sq");
    const Tensors grads = Decayed(o, o.decoupled_weight_decay, work.values, work.grads);
    const double step = static_cast<double>(work.steps);
    const double mu = o.beta1 * (1 - 0.5 * std::pow(0.96, step * o.momentum_decay));
    const double mu_next = o.beta1 * (1 - 0.5 * std::pow(0.96, (step + 1) * o.momentum_decay));
    std::vector<at::Scalar> of_grad, of_mean;
    for (Parameter* parameter : work.parameters) {
      parameter->mu_product *= mu;
      of_grad.emplace_back(-o.lr * (1 - mu) / (1 - parameter->mu_product));
      of_mean.emplace_back(-o.lr * mu_next / (1 - parameter->mu_product * mu_next));
    }
    UpdateMoments(o, grads, mean, square);
    Tensors denominator = at::_foreach_div(square, 1 - std::pow(o.beta2, step));
    at::_foreach_sqrt_(denominator);
    at::_foreach_add_(denominator, o.eps);
    at::_foreach_addcdiv_(work.values, grads, denominator, of_grad);
    at::_foreach_addcdiv_(work.values, mean, denominator, of_mean);
  }
  std::vector<std::string> SlotNames() const override { return {"exp_avg", "exp_avg_sq"}; }
  std::vector<std::string> RequiredSlots(at::IntArrayRef) const override { return SlotNames(); }
  double* MomentumOf(OptimGroupOptions* options) const override { return &options->beta1; }
};

class RAdam final : public Optimizer {
 public:
  RAdam() : Optimizer("radam") {}

 private:
  void Update(const OptimGroupOptions& o, const Work& work) override {
    const Tensors mean = work.Slot("exp_avg"), square = work.Slot("exp_avg_sq");
    const Tensors grads = Decayed(o, o.decoupled_weight_decay, work.values, work.grads);
    UpdateMoments(o, grads, mean, square);
    const double step = static_cast<double>(work.steps);
    const double correction1 = 1 - std::pow(o.beta1, step), correction2 = 1 - std::pow(o.beta2, step);
    const double longest = 2 / (1 - o.beta2) - 1;
    const double length = longest - 2 * step * std::pow(o.beta2, step) / correction2;
    if (length <= 5) {  // too few updates for a variance
      at::_foreach_add_(work.values, mean, -o.lr / correction1);
      return;
    }
    const double rectified =
        std::sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length));
    Tensors denominator = at::_foreach_sqrt(square);
    at::_foreach_add_(denominator, o.eps);
    at::_foreach_addcdiv_(work.values, mean, denominator,
                          at::Scalar(-o.lr * rectified * std::sqrt(correction2) / correction1));
  }
  std::vector<std::string> SlotNames() const override { return {"exp_avg", "exp_avg_sq"}; }
  std::vector<std::string> RequiredSlots(at::IntArrayRef) const override { return SlotNames(); }
  double* MomentumOf(OptimGroupOptions* options) const override { return &options->beta1; }
};

class RmsProp final : public Optimizer {
 public:
  RmsProp() : Optimizer("rmsprop") {}

 private:
  void Update(const OptimGroupOptions& o, const Work& work) override {
    const Tensors grads = Decayed(o, false, work.values, work.grads);
    const Tensors square = work.Slot("square_avg");
    at::_foreach_mul_(square, o.alpha);
    at::_foreach_addcmul_(square, grads, grads, 1 - o.alpha);
    Tensors root;
    if (o.centered) {
      const Tensors mean = work.Slot("grad_avg");
      at::_foreach_lerp_(mean, grads, 1 - o.alpha);
      root = at::_foreach_addcmul(square, mean, mean, -1);
      at::_foreach_sqrt_(root);
    } else {
      root = at::_foreach_sqrt(square);
    }
    at::_foreach_add_(root, o.eps);
    if (o.momentum > 0) {
      const Tensors buffer = work.Slot("momentum_buffer");
      at::_foreach_mul_(buffer, o.momentum);
      at::_foreach_addcdiv_(buffer, grads, root, at::Scalar(1));
      at::_foreach_add_(work.values, buffer, -o.lr);
    } else {
      at::_foreach_addcdiv_(work.values, grads, root, at::Scalar(-o.lr));
    }
  }
  std::vector<std::string> SlotNames() const override { return {"square_avg", "grad_avg", "momentum_buffer"}; }
  std::vector<std::string> RequiredSlots(at::IntArrayRef) const override { return {"square_avg"}; }
  double* MomentumOf(OptimGroupOptions* options) const override { return &options->momentum; }
};

class Lion final : public Optimizer {
 public:
  Lion() : Optimizer("lion") {}

 private:
  void Update(const OptimGroupOptions& o, const Work& work) override {
    const Tensors mean = work.Slot("exp_avg");
    const Tensors grads = Decayed(o, true, work.values, work.grads);
    Tensors direction = at::_foreach_lerp(mean, grads, 1 - o.beta1);
    direction = at::_foreach_sign(direction);
    at::_foreach_add_(work.values, direction, -o.lr);
    at::_foreach_lerp_(mean, grads, 1 - o.beta2);
  }
  std::vector<std::string> SlotNames() const override { return {"exp_avg"}; }
  std::vector<std::string> RequiredSlots(at::IntArrayRef) const override { return SlotNames(); }
  double* MomentumOf(OptimGroupOptions* options) const override { return &options->beta1; }
};

// The nearest semi-orthogonal matrix, roughly, by Newton-Schulz iterations in bfloat16.
torch::Tensor Orthogonalized(const torch::Tensor& matrix, int64_t steps, double eps) {
  constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;
  const bool tall = matrix.size(0) > matrix.size(1);
  torch::Tensor x = matrix.to(torch::kBFloat16);
  if (tall) x = x.t();
  x = x / x.norm().clamp_min(eps);
  for (int64_t i = 0; i < steps; ++i) {
    const torch::Tensor gram = x.mm(x.t());
    x = torch::addmm(x, torch::addmm(gram, gram, gram, kB, kC), x, kA);
  }
  return tall ? x.t() : x;
}

class Muon final : public Optimizer {
 public:
  Muon() : Optimizer("muon") {}

 private:
  void Update(const OptimGroupOptions& o, const Work& work) override {
    Work matrices, others;
    matrices.steps = others.steps = work.steps;
    for (size_t i = 0; i < work.values.size(); ++i) {
      const bool matrix = ShapeOf(*work.parameters[i]).size() == 2;
      if (!matrix && work.values[i].numel() == 0) continue;
      Work& part = matrix ? matrices : others;
      part.parameters.push_back(work.parameters[i]);
      part.values.push_back(work.values[i]);
      part.grads.push_back(work.grads[i]);
    }
    if (!matrices.values.empty()) UpdateMatrices(o, matrices);
    if (others.values.empty()) return;
    constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEps = 1e-8;
    at::_fused_adamw_(others.values, others.grads, others.Slot("exp_avg"), others.Slot("exp_avg_sq"), {},
                      others.StepTensors(), o.lr, kBeta1, kBeta2, o.weight_decay, kEps, /*amsgrad=*/false,
                      /*maximize=*/false);
  }
  void UpdateMatrices(const OptimGroupOptions& o, const Work& work) {
    const Tensors buffers = work.Slot("momentum_buffer");
    at::_foreach_lerp_(buffers, work.grads, 1 - o.momentum);
    const Tensors updates = o.nesterov ? at::_foreach_lerp(work.grads, buffers, o.momentum) : buffers;
    if (o.weight_decay != 0) at::_foreach_mul_(work.values, 1 - o.lr * o.weight_decay);
    for (size_t i = 0; i < updates.size(); ++i) {
      const Parameter& parameter = *work.parameters[i];
      const at::IntArrayRef sizes = ShapeOf(parameter);
      const double shape = std::sqrt(std::max(1.0, static_cast<double>(sizes[0]) / static_cast<double>(sizes[1])));
      const torch::Tensor update = Orthogonalized(Whole(parameter, updates[i]), o.ns_steps, o.eps);
      work.values[i].add_(OwnOf(parameter, update), -o.lr * shape);
    }
  }
  bool NeedsWhole() const override { return true; }
  std::vector<std::string> SlotNames() const override { return {"momentum_buffer", "exp_avg", "exp_avg_sq"}; }
  double* MomentumOf(OptimGroupOptions* options) const override { return &options->momentum; }
};

}  // namespace

std::unique_ptr<Optimizer> MakeForeachOptimizer(const std::string& type) {
  if (type == "nadam") return std::make_unique<NAdam>();
  if (type == "radam") return std::make_unique<RAdam>();
  if (type == "rmsprop") return std::make_unique<RmsProp>();
  if (type == "lion") return std::make_unique<Lion>();
  if (type == "muon") return std::make_unique<Muon>();
  return nullptr;
}

}  // namespace athanor
