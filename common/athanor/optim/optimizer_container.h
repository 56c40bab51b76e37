// One update as a training loop wants it: gradients checked, clipped, applied, cleared, schedules advanced.
//
//   OptimizerContainer container(optimizer.get(), {.max_grad_norm = 1.0, .skip_nonfinite_grad = true});
//   container.Add(scheduler.get());
//   loss.backward();
//   ASSIGN_OR_RETURN(bool updated, container.Step());         // false: left out, nothing but the gradients has changed
//
// Order: look for NaN and infinity, scale by `factor`, clip by value, clip by norm, update, clear the gradients, step
// the schedules of interval kStep. A skipped update clears the gradients only. Not thread-safe; owns nothing.
//
// With `graphs` the part between the check and the schedules is one graph of the device's (torch/device_graph.h),
// where the optimizer can (Optimizer::KeepScalarsOnDevice()): captured once the same gradients have been updated
// `graph_warmup` times, and anew when a gradient is another tensor. Learning rates and factors go on changing; a
// momentum that changes with every update is never captured. Other optimizers are launched as they are.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/optim/lr_scheduler.h"
#include "athanor/optim/optimizer.h"
#include "athanor/torch/device_graph.h"

namespace athanor {

struct OptimizerContainerOptions {
  std::optional<double> max_grad_value;
  std::optional<double> max_grad_norm;
  bool skip_nonfinite_grad = false;
  // Whether any rank votes to skip; asked on every rank with its own vote. Unset: this rank decides alone, which is
  // right where every rank holds the same gradients.
  std::function<absl::StatusOr<bool>(bool mine)> any_rank;
  // The 2-norm of all gradients, in place of GradNorm() (gradients.h): where this rank has only a part of them. May
  // throw.
  std::function<torch::Tensor(const std::vector<torch::Tensor>& parameters)> norm;
  std::function<void()> zero_grad;  // in place of Optimizer::ZeroGrad(): whoever owns the gradients clears them
  std::shared_ptr<DeviceGraphs> graphs;
  int64_t graph_warmup = 3;
};

class OptimizerContainer {
 public:
  OptimizerContainer(Optimizer* optimizer, OptimizerContainerOptions options);

  void Add(LrScheduler* scheduler) { schedulers_.push_back(scheduler); }

  // One update from the gradients that are there, times `factor`. FAILED_PRECONDITION for an optimizer that needs a
  // closure; errors of LibTorch pass through as exceptions, as in Optimizer::Step().
  absl::StatusOr<bool> Step(double factor = 1);
  absl::StatusOr<bool> Step(const torch::Tensor& factor);  // 0-dim, on the gradients' device: nobody waits for it
  // The same for lbfgs, which makes the gradients itself; no clipping and no check, which the line search would not
  // see.
  absl::StatusOr<bool> Step(const LossClosure& closure);
  // After an epoch: schedules of interval kEpoch. `metric`: for those that want one, which stay as they are without it.
  absl::Status StepEpoch(std::optional<double> metric);
  void ZeroGrad() { options_.zero_grad ? options_.zero_grad() : optimizer_->ZeroGrad(); }

  // Whether the next updates measure the norm of the gradients also where they are not clipped by it.
  void MeasureNorm(bool on) { measure_norm_ = on; }

  // Whether the next updates may be a graph: not while `zero_grad` gives up the gradients' tensors.
  void UseGraphs(bool on) { use_graphs_ = on; }

  int64_t updates() const { return updates_; }
  int64_t skipped() const { return skipped_; }
  int64_t replays() const;  // updates that were one launch
  // Of the last update that was clipped by norm or measured, before clipping; undefined: none. On the gradients'
  // device; with graphs the next update may write into it.
  const torch::Tensor& grad_norm() const { return grad_norm_; }
  Optimizer& optimizer() { return *optimizer_; }

 private:
  using Factor = std::variant<double, torch::Tensor>;
  absl::StatusOr<bool> ScaledStep(const Factor& factor);
  torch::Tensor UpdateOnDevice(const Factor& factor, bool measure);
  torch::Tensor UpdateByGraph(const Factor& factor, bool measure);
  absl::StatusOr<bool> MustSkip() const;
  torch::Tensor Norm() const;
  absl::Status StepSchedules();

  Optimizer* optimizer_;
  OptimizerContainerOptions options_;
  std::vector<LrScheduler*> schedulers_;
  torch::Tensor grad_norm_;
  bool measure_norm_ = false;
  bool use_graphs_ = true;
  struct Graphed {
    GraphedWork work;
    std::vector<uint64_t> signature;
    torch::Tensor norm;
  };
  std::map<std::pair<bool, bool>, Graphed> graphed_;  // by whether it scales, and measures
  torch::Tensor factor_;                              // what the graphs scale by
  int64_t updates_ = 0;
  int64_t skipped_ = 0;
};

}  // namespace athanor
