// A number that tells whether two ranks hold the same tensors.
//
//   const int64_t mine = FingerprintOf(model->parameters());
//   ASSIGN_OR_RETURN(Agreement all, group->AllAgree({mine}));
//   if (all.min[0] != all.max[0]) ... the ranks differ ...
//
// On the CPU every bit of every element counts with its place, as fast as memory is read. On other devices it is made
// of sums of the bits by tensor, so elements that have changed places go unnoticed. Waits for the device, once. Throws
// LibTorch's exceptions.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <vector>

namespace athanor {

// From 1 to 2^62; the same for the same values, dtypes and order of tensors, whatever the number of threads. Undefined
// tensors do not count.
int64_t FingerprintOf(const std::vector<torch::Tensor>& tensors);

}  // namespace athanor
