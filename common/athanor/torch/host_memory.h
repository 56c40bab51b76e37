// Host memory for training on the CPU: what one step frees the next one needs again, so it is kept.
//
//   KeepHostMemory();      // TorchRunner does it
//
// By default the C library returns large freed blocks to the system at once, and every step pays for their pages anew:
// a sixth of the time of a small CNN, more where gradients of large layers are made. After this call freed heap memory
// stays with the process up to 1 GiB, and LibTorch's blocks of 32 MiB and more come from a cache of freed ones (at most
// 256 MiB). The peak of a training does not grow: its steps are alike.
#pragma once

#include <cstdint>

namespace athanor {

// For the whole process, once; later calls do nothing. False, and nothing is changed, when the environment says how the
// C library's allocator shall behave (MALLOC_..._, GLIBC_TUNABLES with glibc.malloc). Call it before other threads
// make tensors; memory from before is returned as it always was. Thread-safe.
bool KeepHostMemory();

// Gives back what is kept. Thread-safe.
void ReleaseKeptHostMemory();

// Takes the code of LibTorch out of this process's resident set: most of what was read is the registration of thousands
// of operators, at start-up only. What is needed again comes back from the page cache, a few megabytes of it.
// TorchRunner does it. False, and nothing is done, where somebody has written into that code (a debugger's break
// points). Thread-safe.
bool ForgetStartupCode();

int64_t KeptHostBlocksBytes();  // in the cache of large blocks, now

}  // namespace athanor
