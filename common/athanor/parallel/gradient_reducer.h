// Averages gradients over the ranks. Between machines and on CUDA while backward still runs (c10d::Reducer: buckets,
// reduced as soon as they are full); CPU ranks of one machine exchange through memory after it, in place: without
// buckets nothing is copied or held twice.
//
//   ASSIGN_OR_RETURN(auto reducer, GradientReducer::Create(*model, members, {}));  // rank 0's weights go everywhere
//   loss.backward();                      // of each micro-batch of a window but the last: gradients add up locally
//   reducer->PrepareForBackward(loss);
//   loss.backward();                      // of the last: returns with the mean over the ranks in .grad
//   optimizer->Step();
//   reducer->DropGradients();
//
// Where there are buckets, gradients are views into them: no copy back. Drop them (or zero them in place);
// Module::zero_grad() would throw. Bucket order is fixed at creation (reverse order of registration) and the same after
// a restart, so that sums are too.
//
// Errors of PrepareForBackward() and of backward itself are exceptions, as everything inside autograd: call them within
// RunTorch(). A lost peer is a c10::DistBackendError there. Threads: the training thread.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/parallel/membership.h"

namespace athanor {

struct GradientReducerOptions {
  int64_t bucket_bytes = 25 << 20;
  bool find_unused_parameters =
      false;  // set it when a forward pass may leave parameters out; costs a walk over the graph
};

class GradientReducer {
 public:
  // Collective. INVALID_ARGUMENT when the ranks' models differ in names, shapes or dtypes. `module` and the members'
  // group outlive the reducer. Parameters are those of now, one with several names counts once; buffers are asked of
  // the module whenever they are needed.
  static absl::StatusOr<std::unique_ptr<GradientReducer>> Create(const torch::nn::Module& module,
                                                                 const Membership& members,
                                                                 const GradientReducerOptions& options);
  ~GradientReducer();
  // Other ranks, at the start as later: their models are compared, and rank 0's weights and buffers are everybody's.
  // Collective; errors as Create(), which calls it.
  absl::Status Reseat(const Membership& members);

  // Before the backward pass whose gradients are to be exchanged.
  void PrepareForBackward(const torch::Tensor& loss);
  // After that backward pass: the gradients are the means then.
  void FinishBackward();
  // Gradients become undefined: the next backward starts from nothing.
  void DropGradients();
  // Whether gradients may stay where they are from now on: not before the first DropGradients() after an exchange.
  bool settled() const;
  // Collective: buffers (running statistics) and frozen parameters of rank 0 everywhere. Before evaluating and saving.
  absl::Status SyncBuffers();
  // Collective: parameters and buffers of rank 0 everywhere.
  absl::Status SyncModel();

 private:
  struct Impl;
  explicit GradientReducer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace athanor
