// A c10d::Work that somebody else completes: with its tensors, or with an error.
#pragma once

#include <vector>

#include <torch/csrc/distributed/c10d/Work.hpp>

#include "absl/status/status.h"

namespace athanor {

class PendingWork : public c10d::Work {
 public:
  PendingWork(int rank, c10d::OpType type, std::vector<at::Tensor> results);

  std::vector<at::Tensor> result() override { return results_; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }
  int sourceRank() const override { return source_; }

  // Once. What the caller did (FAILED_PRECONDITION, INVALID_ARGUMENT) is thrown as a c10::ValueError, what other ranks
  // did as a c10::DistBackendError. `source`: the sender of what was received.
  void Complete(const absl::Status& status, int source = -1);

 private:
  const std::vector<at::Tensor> results_;
  const c10::intrusive_ptr<c10::ivalue::Future> future_;
  int source_ = -1;
};

}  // namespace athanor
