// Optimizers whose state is known by parameter name: saved, loaded and moved to another number of ranks without a
// parameter order.
//
//   OptimConfig config;  config.type = "adamw";  config.lr = 1e-3;
//   NamedTensors parameters;
//   for (auto& item : model->named_parameters()) parameters.emplace_back(item.key(), item.value());
//   ASSIGN_OR_RETURN(auto optimizer, MakeOptimizer(config, parameters));
//   loss.backward();  optimizer->Step();  optimizer->ZeroGrad();
//
// sgd, adam, adamw, adagrad run LibTorch's fused kernels on CPU and CUDA; adadelta, adamax, asgd, nadam, radam,
// rmsprop, rprop, lion, muon run foreach kernels; adafactor goes parameter by parameter; lbfgs is LibTorch's and needs
// Step(closure). No call but lbfgs's waits for the device. muon updates matrices; parameters of other shapes get the
// update of adamw with betas 0.9, 0.999. LibTorch's own errors (c10::Error, c10::OutOfMemoryError) pass through Step().
// Not thread-safe.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/config/runner_config.h"

namespace athanor {

using TensorMap = std::map<std::string, torch::Tensor>;  // as in checkpoint/training_state.h
using NamedTensors = std::vector<std::pair<std::string, torch::Tensor>>;

// The settings of one parameter group, all resolved.
struct OptimGroupOptions {
  double lr = 0;
  double weight_decay = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double momentum = 0;
  double dampening = 0;
  bool nesterov = false;
  bool amsgrad = false;
  double alpha = 0.99;  // asgd: 0.75
  bool centered = false;
  double lr_decay = 0;
  double initial_accumulator_value = 0;
  double momentum_decay = 4e-3;
  bool decoupled_weight_decay = false;
  int64_t ns_steps = 5;
  double rho = 0.9;
  double lambd = 1e-4;
  double t0 = 1e6;
  double eta_minus = 0.5, eta_plus = 1.2;
  double step_min = 1e-6, step_max = 50;
  double beta2_decay = -0.8;
  double eps1 = -1;  // < 0: the dtype's epsilon
  double clip_threshold = 1;
};

// Runs forward and backward and returns the loss; the gradients are zero when it is called.
using LossClosure = std::function<torch::Tensor()>;

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  // One update of every parameter that has a gradient. Those without are left alone, with their state.
  void Step();
  // One update with a closure, called once, or as often as lbfgs wants. Returns its first loss.
  virtual torch::Tensor Step(const LossClosure& closure);
  virtual bool needs_closure() const { return false; }  // then Step() throws c10::Error

  // The two parts of Step(). The host's: counts the update, finds the gradients, sends learning rates. The device's:
  // kernels alone, so a graph may hold them (torch/device_graph.h) once KeepScalarsOnDevice() has said yes. An update
  // is prepared once and applied once.
  void Prepare();
  void Apply();
  // Keeps what changes from update to update (learning rates, numbers of updates) in float32 tensors on the
  // parameters' device, where Apply() reads them. False: the type cannot; sgd, adam, adamw and adagrad can.
  bool KeepScalarsOnDevice();
  // All that Apply() of the prepared update depends on besides the contents of tensors: where it is the same, a graph
  // of Apply() does the same.
  std::vector<uint64_t> Signature() const;

  // Zeroes the gradients in place (they may be views of DDP's buckets); undefined ones stay undefined.
  void ZeroGrad();

  size_t group_count() const { return groups_.size(); }
  const OptimGroupOptions& group_options(size_t group) const { return groups_[group].options; }
  std::vector<std::string> group_parameters(size_t group) const;
  double lr(size_t group = 0) const { return groups_[group].options.lr; }
  void SetLr(size_t group, double lr) { groups_[group].options.lr = lr; }
  // The momentum, or the first beta of Adam's kind. False (and nothing done) when the type has neither.
  bool SetMomentum(size_t group, double momentum);

  // Every parameter once, in group order; for clipping (gradients.h).
  const std::vector<torch::Tensor>& parameters() const { return parameters_; }

  // The live state tensors, "optim.<parameter>.<slot>" (aliases: copy them before the next Step() if you keep them). A
  // parameter that never had a gradient has none.
  virtual TensorMap StateTensors() const;
  // The rest: {"type", "steps": {…}, "groups": [{"lr": …}, …]}.
  virtual nlohmann::json StateScalars() const;
  // Restores exactly; copies, casting nothing. INVALID_ARGUMENT names the first parameter or slot whose shape or dtype
  // differs, or that is unknown, or an optimizer of another type; then the optimizer is unchanged. Keys without the
  // prefix "optim." are ignored. Learning rates are restored when the number of groups is the same.
  virtual absl::Status LoadState(const TensorMap& tensors, const nlohmann::json& scalars);

  // Whether the state of a part of a parameter is the same part of its state.
  virtual bool DividesState() const { return true; }

  const std::string& type() const { return type_; }
  // Things worth a warning in the log: patterns that matched no parameter.
  const std::vector<std::string>& notes() const { return notes_; }

  // A parameter of which this rank has a part: its tensor is 1-D, and begins at element `begin` of the flattened one.
  struct Part {
    std::vector<int64_t> shape;  // of the whole
    int64_t begin = 0;
  };
  // Before the first update: the parameters, by name, that are parts. `sum` adds a tensor up over the ranks whose parts
  // together are whole, in place; may throw. Ranks list the same parameters in the same order. muon and adafactor bring
  // one matrix at a time together; others look at elements alone.
  void UseParts(const std::map<std::string, Part>& parts, std::function<void(torch::Tensor)> sum);

  struct Parameter {
    std::string name;
    torch::Tensor tensor;
    std::optional<Part> part;  // unset: it is whole
    int64_t steps = 0;         // updates so far
    double mu_product = 1;     // nadam: product of the momentum schedule so far
    std::map<std::string, torch::Tensor> slots;
  };
  struct Group {
    OptimGroupOptions options;
    std::vector<Parameter> parameters;
  };

  // Parameters of one group, device, dtype and number of updates that have gradients.
  struct Work {
    std::vector<Parameter*> parameters;
    std::vector<torch::Tensor> values, grads;
    int64_t steps = 0;                            // including this one
    torch::Tensor lr_on_device, steps_on_device;  // 0-dim, float32; undefined: numbers of the host
    // The slot of every parameter, filled with `initial` where it is missing.
    std::vector<torch::Tensor> Slot(const std::string& slot, double initial = 0) const;
    // The number of updates as a 0-dim tensor, once per parameter, as the fused kernels want it.
    std::vector<torch::Tensor> StepTensors() const;
  };

 protected:
  explicit Optimizer(std::string type) : type_(std::move(type)) {}

  virtual void Update(const OptimGroupOptions& options, const Work& work) = 0;
  // The slots that LoadState() accepts, and those that a parameter with updates must have.
  virtual std::vector<std::string> SlotNames() const = 0;
  virtual std::vector<std::string> RequiredSlots(at::IntArrayRef /*shape*/) const { return {}; }
  // `shape`: the parameter's; of its part where the state is divided.
  virtual std::vector<int64_t> SlotSizes(const std::string& /*slot*/, at::IntArrayRef shape) const {
    return shape.vec();
  }
  virtual double* MomentumOf(OptimGroupOptions* options) const = 0;  // null: has none
  virtual bool ReadsScalarsOnDevice() const { return false; }        // Update() takes Work::lr_on_device
  // Whether Update() needs matrices whole: then Work holds parts without elements, too.
  virtual bool NeedsWhole() const { return false; }
  // For Update(). A parameter's shape; a tensor like it as a whole, out of this rank's part of it; and that part again.
  static at::IntArrayRef ShapeOf(const Parameter& parameter);
  torch::Tensor Whole(const Parameter& parameter, const torch::Tensor& own) const;
  static torch::Tensor OwnOf(const Parameter& parameter, const torch::Tensor& whole);
  void SumOverParts(torch::Tensor value) const {
    if (sum_) sum_(std::move(value));
  }

 private:
  friend absl::StatusOr<std::unique_ptr<Optimizer>> MakeOptimizer(const OptimConfig& config,
                                                                  const NamedTensors& parameters);
  std::vector<Work> Divide(Group* group);
  at::IntArrayRef StateShapeOf(const Parameter& parameter) const;
  void SendScalars(const Group& group, size_t place, Work* work);
  absl::Status PlanLoad(const TensorMap& tensors, const nlohmann::json& scalars, std::vector<Parameter>* plan) const;

  std::string type_;
  std::vector<Group> groups_;
  std::vector<torch::Tensor> parameters_;
  std::function<void(torch::Tensor)> sum_;
  std::vector<std::string> notes_;
  struct Prepared {
    Group* group;
    Work work;
  };
  std::vector<Prepared> prepared_;
  bool scalars_on_device_ = false;
  std::vector<torch::Tensor> sent_;  // learning rate and number of updates of each Work
  uint64_t loads_ = 0;               // of state: the tensors of the slots are others then
};

// Groups: each entry of config.param_groups takes the parameters whose name its pattern is found in (first match wins,
// order kept); the rest form a last group with the defaults. Parameters that need no gradient are left out, one shared
// by several names counts once, under the first. INVALID_ARGUMENT: unknown type (with the known ones), an option the
// type does not have, a bad pattern, nothing to train.
absl::StatusOr<std::unique_ptr<Optimizer>> MakeOptimizer(const OptimConfig& config, const NamedTensors& parameters);

}  // namespace athanor
