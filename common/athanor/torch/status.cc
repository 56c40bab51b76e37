#include "athanor/torch/status.h"

#include <c10/util/Exception.h>

#include <new>
#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace athanor {
namespace {

constexpr char kPayload[] = "type.athanor/failure_kind";

bool Mentions(const std::string& text, std::initializer_list<const char*> words) {
  for (const char* word : words) {
    if (text.find(word) != std::string::npos) return true;
  }
  return false;
}

// LibTorch's allocators and Gloo throw plain c10::Error or std::runtime_error: their words tell them apart.
absl::Status FromText(absl::string_view name, const std::string& what) {
  const std::string text = absl::StrCat(name, ": ", what);
  if (Mentions(what, {"out of memory", "not enough memory", "can't allocate memory", "DefaultCPUAllocator"})) {
    return WithFailureKind(absl::ResourceExhaustedError(text), FailureKind::kOutOfMemory);
  }
  if (Mentions(what, {"gloo/", "Connection closed by peer", "Connection reset by peer", "NCCL", "ProcessGroup",
                      "TCPStore", "Timed out waiting"})) {
    return WithFailureKind(absl::UnavailableError(text), FailureKind::kPeerLost);
  }
  return WithFailureKind(absl::UnknownError(text), FailureKind::kUserCode);
}

}  // namespace

absl::Status WithFailureKind(absl::Status status, FailureKind kind) {
  if (!status.ok()) status.SetPayload(kPayload, absl::Cord(ToString(kind)));
  return status;
}

std::optional<FailureKind> FailureKindOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayload);
  if (!payload.has_value()) return std::nullopt;
  return CauseFromName(std::string(*payload));
}

absl::Status internal::CatchTorch(absl::string_view name, const std::function<void()>& body) {
  try {
    body();
    return absl::OkStatus();
  } catch (const c10::OutOfMemoryError& error) {
    return WithFailureKind(absl::ResourceExhaustedError(absl::StrCat(name, ": ", error.what_without_backtrace())),
                           FailureKind::kOutOfMemory);
  } catch (const c10::DistError& error) {
    return WithFailureKind(absl::UnavailableError(absl::StrCat(name, ": ", error.what_without_backtrace())),
                           FailureKind::kPeerLost);
  } catch (const c10::Error& error) {
    return FromText(name, error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return WithFailureKind(absl::ResourceExhaustedError(absl::StrCat(name, ": out of host memory")),
                           FailureKind::kOutOfMemory);
  } catch (const std::exception& error) {
    return FromText(name, error.what());
  }
}

}  // namespace athanor
