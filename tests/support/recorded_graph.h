// Graphs of the CPU, for tests: what a CUDA graph does, without a GPU. Every operator that reaches the CPU's kernels
// during a capture is kept with its arguments, and run again at each replay into the same result tensors. So numbers of
// the host are frozen, tensors are read as they are then, random numbers go on, and nothing else of the host's code is
// done again: work that may not be captured gives wrong results here as it would there. Waiting for the device
// (Tensor::item()) fails the capture. Autograd is above: a backward pass is captured as the operators it runs.
#pragma once

#include <memory>

#include "athanor/torch/device_graph.h"

namespace athanor {

std::shared_ptr<DeviceGraphs> RecordedGraphs();

}  // namespace athanor
