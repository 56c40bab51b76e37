// What repeats a run bit for bit on a device (`deterministic: true`).
#pragma once

#include <torch/torch.h>

#include "absl/status/status.h"

namespace athanor {

// Changes the process: operations that have no repeatable form raise, cuDNN does not search for the fastest one, TF32
// is off, and for CUDA the variable CUBLAS_WORKSPACE_CONFIG is set to ":4096:8" unless it is set. cuBLAS reads that
// once, at its first call in the process, which must come later. INVALID_ARGUMENT: the variable has a value with which
// cuBLAS does not repeat its results.
absl::Status UseDeterministicAlgorithms(const torch::Device& device);

}  // namespace athanor
