// Optimizers with one fused kernel per update.
#include "athanor/optim/kinds/optimizer_kinds.h"

namespace athanor {
namespace {

// The kernels take the learning rate as a number or as a tensor of the device's.
template <class Kernel>
void WithLr(const OptimGroupOptions& options, const Optimizer::Work& work, const Kernel& kernel) {
  work.lr_on_device.defined() ? kernel(work.lr_on_device) : kernel(options.lr);
}

class Sgd final : public Optimizer {
 public:
  Sgd() : Optimizer("sgd") {}

 private:
  void Update(const OptimGroupOptions& options, const Work& work) override {
    if (options.momentum == 0) {
      Run(options, work, work.values, work.grads, {}, false);
      return;
    }
    // The first update copies the gradient into the buffer: the kernel takes one flag for the whole list.
    std::vector<torch::Tensor> values[2], grads[2], buffers[2];
    for (size_t i = 0; i < work.values.size(); ++i) {
      torch::Tensor& buffer = work.parameters[i]->slots["momentum_buffer"];
      const bool first = !buffer.defined();
      if (first) buffer = torch::empty_like(work.values[i]).detach();
      values[first].push_back(work.values[i]);
      grads[first].push_back(work.grads[i]);
      buffers[first].push_back(buffer);
    }
    for (const int first : {0, 1}) {
      if (!values[first].empty()) Run(options, work, values[first], grads[first], buffers[first], first == 1);
    }
  }
  static void Run(const OptimGroupOptions& o, const Work& work, at::TensorList values, at::TensorList grads,
                  at::TensorList buffers, bool first) {
    WithLr(o, work, [&](const auto& lr) {
      at::_fused_sgd_(values, grads, buffers, o.weight_decay, o.momentum, lr, o.dampening, o.nesterov,
                      /*maximize=*/false, first);
    });
  }
  bool ReadsScalarsOnDevice() const override { return true; }
  std::vector<std::string> SlotNames() const override { return {"momentum_buffer"}; }
  double* MomentumOf(OptimGroupOptions* options) const override { return &options->momentum; }
};

class Adam final : public Optimizer {
 public:
  explicit Adam(bool decoupled) : Optimizer(decoupled ? "adamw" : "adam"), decoupled_(decoupled) {}

 private:
  void Update(const OptimGroupOptions& o, const Work& work) override {
    const auto mean = work.Slot("exp_avg"), square = work.Slot("exp_avg_sq");
    const auto highest = o.amsgrad ? work.Slot("max_exp_avg_sq") : std::vector<torch::Tensor>();
    const auto steps = work.StepTensors();
    WithLr(o, work, [&](const auto& lr) {
      const auto run = [&](const auto& kernel) {
        kernel(work.values, work.grads, mean, square, highest, steps, lr, o.beta1, o.beta2, o.weight_decay, o.eps,
               o.amsgrad, /*maximize=*/false);
      };
      if (decoupled_) {
        run([](const auto&... arguments) { at::_fused_adamw_(arguments...); });
      } else {
        run([](const auto&... arguments) { at::_fused_adam_(arguments...); });
      }
    });
  }
  bool ReadsScalarsOnDevice() const override { return true; }
  std::vector<std::string> SlotNames() const override { return {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}; }
  std::vector<std::string> RequiredSlots(at::IntArrayRef) const override { return {"exp_avg", "exp_avg_sq"}; }
  double* MomentumOf(OptimGroupOptions* options) const override { return &options->beta1; }

  bool decoupled_;
};

class Adagrad final : public Optimizer {
 public:
  Adagrad() : Optimizer("adagrad") {}

 private:
  void Update(const OptimGroupOptions& o, const Work& work) override {
    const auto sums = work.Slot("sum", o.initial_accumulator_value);
    const auto steps = work.StepTensors();
    WithLr(o, work, [&](const auto& lr) {
      at::_fused_adagrad_(work.values, work.grads, sums, steps, lr, o.lr_decay, o.weight_decay, o.eps,
                          /*maximize=*/false);
    });
  }
  bool ReadsScalarsOnDevice() const override { return true; }
  std::vector<std::string> SlotNames() const override { return {"sum"}; }
  std::vector<std::string> RequiredSlots(at::IntArrayRef) const override { return {"sum"}; }
  double* MomentumOf(OptimGroupOptions*) const override { return nullptr; }
};

}  // namespace

std::unique_ptr<Optimizer> MakeFusedOptimizer(const std::string& type) {
  if (type == "sgd") return std::make_unique<Sgd>();
  if (type == "adam" || type == "adamw") return std::make_unique<Adam>(type == "adamw");
  if (type == "adagrad") return std::make_unique<Adagrad>();
  return nullptr;
}

}  // namespace athanor
