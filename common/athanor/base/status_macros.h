// RETURN_IF_ERROR and ASSIGN_OR_RETURN for absl::Status and absl::StatusOr.
//
//   absl::StatusOr<int> Parse(const Text& text);
//   absl::Status Load(const Text& text) {
//     RETURN_IF_ERROR(Check(text));
//     ASSIGN_OR_RETURN(int value, Parse(text));
//     ...
//   }
//
// `RETURN_IF_ERROR(expr).With("reading manifest " + path)` is spelled `RETURN_IF_ERROR(Annotate(expr, "reading …"))`.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"

namespace athanor {

// Puts `context` and ": " in front of the message; keeps the code and the payloads. OK stays OK.
inline absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), std::string(context) + ": " + std::string(status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) { annotated.SetPayload(url, payload); });
  return annotated;
}

}  // namespace athanor

#define ATHANOR_STATUS_CONCAT_INNER(a, b) a##b
#define ATHANOR_STATUS_CONCAT(a, b) ATHANOR_STATUS_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expr)                                         \
  do {                                                                \
    if (absl::Status athanor_status = (expr); !athanor_status.ok()) { \
      return athanor_status;                                          \
    }                                                                 \
  } while (false)

#define ASSIGN_OR_RETURN(lhs, expr) \
  ATHANOR_ASSIGN_OR_RETURN_INNER(ATHANOR_STATUS_CONCAT(athanor_or_, __LINE__), lhs, expr)
#define ATHANOR_ASSIGN_OR_RETURN_INNER(temporary, lhs, expr) \
  auto temporary = (expr);                                   \
  if (!temporary.ok()) return temporary.status();            \
  lhs = std::move(temporary).value()
