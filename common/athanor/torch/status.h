// THE boundary between LibTorch's exceptions and absl::Status. Used around one training step, process group calls and
// tensor file I/O.
//
//   RETURN_IF_ERROR(RunTorch("optimizer step", [&] { optimizer.Step(); }));
//   ASSIGN_OR_RETURN(torch::Tensor loss, RunTorch("forward", [&] { return model->forward(x); }));
//
// The cause (contract/failure_cause.h) rides on the status as a payload: it becomes the trainer's exit code and picks
// the restart budget.
#pragma once

#include <functional>
#include <optional>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "athanor/contract/failure_cause.h"

namespace athanor {

using FailureKind = CauseKind;  // the name in programs: FailureKind::kUserCode

// OK stays OK; a kind that is there already is replaced.
absl::Status WithFailureKind(absl::Status status, FailureKind kind);
std::optional<FailureKind> FailureKindOf(const absl::Status& status);

namespace internal {
// Runs `body`; an exception becomes RESOURCE_EXHAUSTED (out of memory), UNAVAILABLE (a collective) or UNKNOWN (user
// code), named.
absl::Status CatchTorch(absl::string_view name, const std::function<void()>& body);
}  // namespace internal

template <typename Fn>
auto RunTorch(absl::string_view name, Fn&& fn) {
  using Result = std::invoke_result_t<Fn>;
  if constexpr (std::is_void_v<Result>) {
    return internal::CatchTorch(name, [&] { fn(); });
  } else {
    std::optional<Result> result;
    absl::Status status = internal::CatchTorch(name, [&] { result.emplace(fn()); });
    if (!status.ok()) return absl::StatusOr<Result>(std::move(status));
    return absl::StatusOr<Result>(*std::move(result));
  }
}

}  // namespace athanor
