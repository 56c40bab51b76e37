// Activations that are not kept between forward and backward: a part of a model is run again when its gradients are
// wanted. Costs a third of the computation, at most, and saves what the part would keep: all but its inputs.
//
//   torch::Tensor hidden = Checkpointed([&](const std::vector<torch::Tensor>& in) { return block(in[0]); }, {x});
//   CheckpointChildren(*model, {"blocks"}, /*every=*/1);       // the children of a torch::nn::Sequential
//
// The second run sees the random numbers and the autocast of the first, so that dropout drops the same; a part may hold
// further ones. Without gradients the part just runs. torch::autograd::grad() does not see the parameters within: call
// backward(). Exceptions pass through. Threads: that of forward; backward on autograd's.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace athanor {

torch::Tensor Checkpointed(std::function<torch::Tensor(const std::vector<torch::Tensor>&)> part,
                           const std::vector<torch::Tensor>& inputs);

// Runs every `every`-th child (from the first) of the model's torch::nn::Sequential modules of these names so, from now
// on; names of parameters stay as they are. No names: all that are not within another one. Children take and give one
// tensor. Returns how many; INVALID_ARGUMENT names what is no Sequential of the model.
absl::StatusOr<int64_t> CheckpointChildren(torch::nn::Module& model, const std::vector<std::string>& names,
                                           int64_t every);

}  // namespace athanor
