// A device for tests that forbids what a GPU forbids, without a GPU. Its tensors live in memory that the host can
// neither read nor write (a stray data_ptr<float>()[0] is a segmentation fault), its operators refuse tensors of other
// devices where CUDA's refuse them, and it counts how often the host had to wait for it. The operators themselves are
// the CPU's, run on memory behind the scenes: same numbers, bit for bit where LibTorch takes the same way for both, and
// the CPU's random numbers. Views, gradients, modules, optimizers, autocast and printing work as on any device. It is
// LibTorch's back-end for third parties (PrivateUse1) and calls itself "foreign".
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

namespace athanor {

// The device. The first call makes it known to LibTorch, as the process's accelerator.
c10::Device ForeignDevice();

// How often, since the start of the process, the host waited for the device: for each value read (Tensor::item(),
// copies to the CPU, printing), each result whose shape depends on values (nonzero, masks as indices, unique, bincount,
// ...) and each call that does nothing but wait.
int64_t ForeignWaits();

// How often tensors were copied from the host to the device, as indices too, but not 0-dim operands. CUDA waits here as
// well, unless the memory is pinned and the copy `non_blocking`.
int64_t ForeignUploads();

}  // namespace athanor
