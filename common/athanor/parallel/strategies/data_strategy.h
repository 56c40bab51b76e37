// How parameters, gradients and optimizer state are spread over the data axes of the ranks. The training loop, the
// optimizer, checkpoints and checks of a run work through this and know no more of it:
//
//   RETURN_IF_ERROR(strategy->Reseat(members));
//   optimizer = MakeOptimizer(config, names and values of strategy->owned());
//   RETURN_IF_ERROR(strategy->Open());                     // a window begins
//   for each micro-batch:
//     strategy->PrepareForBackward(loss, last);  loss.backward();  strategy->FinishBackward(last);
//   optimizer->Step();                                     // .grad of owned() are means over the ranks
//   strategy->DropGradients();
//   RETURN_IF_ERROR(strategy->PartsChanged());
//
// Implementations: ReplicateStrategy (every rank has everything), ShardStrategy (parts). PrepareForBackward() and
// FinishBackward() throw, as everything inside autograd: call them within RunTorch(). Threads: the training thread.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "athanor/parallel/membership.h"

namespace athanor {

// What this rank has of a parameter for the optimizer to update.
struct OwnedParameter {
  std::string name;            // the first of its names
  torch::Tensor value;         // updated in place
  std::vector<int64_t> shape;  // of the whole parameter
  // `value` is 1-D, possibly without elements, and begins at element `begin` of the flattened parameter.
  bool divided = false;
  int64_t begin = 0;
  torch::Tensor parameter;  // the module's own tensor
};

class DataStrategy {
 public:
  virtual ~DataStrategy() = default;
  DataStrategy() = default;
  DataStrategy(const DataStrategy&) = delete;
  DataStrategy& operator=(const DataStrategy&) = delete;

  // The ranks, at the start as later: their models are compared, and rank 0's weights and buffers are everybody's.
  // Collective. INVALID_ARGUMENT: models that differ, or nothing to train.
  virtual absl::Status Reseat(const Membership& members) = 0;

  // One for each distinct parameter, frozen ones too, in the same order on every rank.
  const std::vector<OwnedParameter>& owned() const { return owned_; }
  // Whether some are divided: no rank sees all gradients then.
  virtual bool divides() const { return false; }
  // Whether forward passes are collective: every rank runs as many, over the same parts of the model.
  virtual bool gathers() const { return false; }
  // How many ranks hold the same parts as this one, and which of them it is.
  virtual int replicas() const { return 1; }
  virtual int replica() const { return 0; }

  // The model is used from here on; gradients are dropped. FAILED_PRECONDITION when it is in use.
  virtual absl::Status Open() { return absl::OkStatus(); }
  // Ends a use without gradients (evaluation), or one that failed.
  virtual absl::Status Close() { return absl::OkStatus(); }

  // Around a backward pass; `last`: gradients are exchanged with it, and those of owned() are the means afterwards.
  virtual void PrepareForBackward(const torch::Tensor& loss, bool last) = 0;
  virtual void FinishBackward(bool last) = 0;
  // Gradients become undefined: the next backward starts from nothing.
  virtual void DropGradients() = 0;
  // Whether gradients may stay where they are from now on.
  virtual bool settled() const { return true; }

  // Values of owned() were written: by an update, a restore. Collective.
  virtual absl::Status PartsChanged() { return absl::OkStatus(); }
  // Collective: rank 0's buffers, everywhere. Before evaluating and saving.
  virtual absl::Status SyncBuffers() = 0;

  // The sum over those ranks whose parts together are whole, in place. Throws.
  virtual void SumOverParts(torch::Tensor /*value*/) {}
  // Values that every rank must hold alike after an update. Collective; throws.
  virtual std::vector<torch::Tensor> Replicated() const = 0;

  // Collective. Calls `take` with each parameter, whole; the tensor is valid during the call.
  virtual absl::Status Gathered(
      const std::function<absl::Status(const std::string& name, const torch::Tensor& whole)>& take) = 0;

 protected:
  std::vector<OwnedParameter> owned_;
};

}  // namespace athanor
