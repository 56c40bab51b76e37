#include "worker/trainer/exit.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <optional>

#include <nlohmann/json.hpp>
#include "athanor/base/storage_id.h"
#include "athanor/base/utf8_text.h"
#include "athanor/contract/failure_cause.h"
#include "athanor/torch/status.h"
#include "worker/trainer/crash_report.h"
#include "worker/trainer/log_line.h"

namespace athanor {
namespace {

constexpr size_t kMaxDetailBytes = 1024;

std::string& FailureFile() {
  static std::string& path = *new std::string;
  return path;
}

// Written whole or not at all: the agent may look at any moment.
void WriteFailureFile(const std::string& text) {
  const std::string& path = FailureFile();
  if (path.empty()) return;
  const std::string fresh = path + ".tmp";
  const int file = open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) return;
  const bool written = write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  close(file);
  if (!written || rename(fresh.c_str(), path.c_str()) != 0) unlink(fresh.c_str());
}

TrainerExit CodeOfKind(CauseKind kind) {
  const int code = FactsOf(kind).exit_code;
  return code == kNoExitCode ? kExitOurBug : static_cast<TrainerExit>(code);
}

[[noreturn]] void OnTerminate() {
  std::string detail = "std::terminate without an exception";
  TrainerExit code = kExitUserCode;
  if (std::exception_ptr current = std::current_exception()) {
    try {
      std::rethrow_exception(current);
    } catch (const std::bad_alloc& error) {
      code = kExitOutOfMemory;
      detail = error.what();
    } catch (const std::exception& error) {
      detail = error.what();
    } catch (...) {
      detail = "an exception that is no std::exception";
    }
  }
  EndProcess(code, "nobody caught: " + detail);
}

}  // namespace

void SetUpExit(const std::string& failure_file) {
  FailureFile() = failure_file;
  std::set_terminate(OnTerminate);
  InstallCrashReport(failure_file);
}

std::string CauseName(TrainerExit code) {
  if (code == kExitFinished) return "finished";
  if (code == kExitStale) return "stale";
  if (code == kExitDoNotRestart) return ToString(CauseKind::kUserCode);
  const CauseFacts* facts = CauseOfExit(code);
  return ToString(facts == nullptr ? CauseKind::kOurBug : facts->kind);
}

TrainerExit ExitCodeOf(const absl::Status& status) {
  if (IsStorageUnavailable(status)) return kExitStorage;
  if (const std::optional<CauseKind> kind = FailureKindOf(status)) return CodeOfKind(*kind);
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitFinished;
    case absl::StatusCode::kInvalidArgument:
      return kExitInvalid;
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kOutOfRange:
      return kExitData;
    case absl::StatusCode::kResourceExhausted:
      return kExitOutOfMemory;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kExitPeerLost;
    case absl::StatusCode::kUnknown:
      return kExitUserCode;
    default:
      return kExitOurBug;
  }
}

void EndProcess(TrainerExit code, const std::string& detail) {
  static std::atomic<bool> ending{false};
  while (ending.exchange(true)) pause();  // another thread is at it; it ends this one too
  if (code != kExitFinished) {
    const std::string kind = CauseName(code);
    const std::string shown = CutUtf8(detail.substr(0, detail.find('\0')), kMaxDetailBytes);
    WriteFailureFile(nlohmann::json{{"kind", kind}, {"detail", shown}}.dump(-1, ' ', false,
                                                                            nlohmann::json::error_handler_t::replace) +
                     "\n");
    LogLine(code == kExitPreempted ? "INFO" : "ERROR", "TrainerFailed",
            {{"cause", kind}, {"exit_code", std::to_string(code)}}, detail);
  }
  std::fflush(nullptr);
  _exit(code);
}

}  // namespace athanor
