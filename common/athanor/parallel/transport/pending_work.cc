#include "athanor/parallel/transport/pending_work.h"

#include <string>
#include <utility>

#include <ATen/core/ivalue.h>

namespace athanor {
namespace {

std::exception_ptr ErrorOf(const absl::Status& status) {
  const c10::SourceLocation here{__func__, __FILE__, static_cast<uint32_t>(__LINE__)};
  const std::string message(status.message());
  if (absl::IsFailedPrecondition(status) || absl::IsInvalidArgument(status)) {
    return std::make_exception_ptr(c10::ValueError(here, message));
  }
  return std::make_exception_ptr(c10::DistBackendError(here, message));
}

}  // namespace

PendingWork::PendingWork(int rank, c10d::OpType type, std::vector<at::Tensor> results)
    : c10d::Work(rank, type),
      results_(std::move(results)),
      future_(c10::make_intrusive<c10::ivalue::Future>(c10::ListType::ofTensors())) {}

void PendingWork::Complete(const absl::Status& status, int source) {
  source_ = source;
  if (status.ok()) {
    finish();
    future_->markCompleted(c10::IValue(results_));
    return;
  }
  const std::exception_ptr error = ErrorOf(status);
  finish(error);
  future_->setError(error);
}

}  // namespace athanor
