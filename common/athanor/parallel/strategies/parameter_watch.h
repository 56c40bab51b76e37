// Tells when operators read or write certain tensors, without any help of the module that holds them: marked tensors
// carry a spare dispatch key, whose fallback looks at every operator that takes one, forward and backward, before its
// kernel runs. Operators without a marked argument are not touched (one with: 0.7 microseconds).
//
//   class Gather : public ParameterWatch { void OnRead(const char* op) override { MakePresent(); } ... };
//   WatchedStorage watched(storage, &gather);
//   parameter.set_data(MarkedView(storage, offset, sizes, strides, dtype));
//
// The mark goes on to views, detach() and what autograd saves; not to results, gradients and copies. Not seen: raw
// pointers (kernels that are no operators), AOTInductor packages, serialization.
//
// Exceptions of a watch leave the operator, and with it forward() or backward(). Threads: any; a storage is watched by
// one object at a time, whose calls come from the thread that runs the operator.
#pragma once

#include <torch/torch.h>

#include <cstdint>

namespace athanor {

class ParameterWatch {
 public:
  virtual ~ParameterWatch() = default;
  // `op`: "aten::addmm". Called for each marked argument; not for operators that only look at shapes.
  virtual void OnRead(const char* op) = 0;
  virtual void OnWrite(const char* op) = 0;
};

// Registers a watch for a storage while it lives.
class WatchedStorage {
 public:
  WatchedStorage(const c10::Storage& storage, ParameterWatch* watch);
  ~WatchedStorage();
  WatchedStorage(const WatchedStorage&) = delete;
  WatchedStorage& operator=(const WatchedStorage&) = delete;

 private:
  const c10::StorageImpl* const storage_;
};

// A contiguous tensor over part of a storage that carries the mark.
torch::Tensor MarkedView(const c10::Storage& storage, int64_t offset, at::IntArrayRef sizes,
                         const torch::TensorOptions& options);

}  // namespace athanor
