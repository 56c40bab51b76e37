#include "worker/agent/exit_report.h"

#include <signal.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "athanor/base/utf8_text.h"
#include "athanor/contract/failure_cause.h"

namespace athanor::agent {
namespace {

constexpr size_t kFailureFileLimit = 16 * 1024;

v1::CauseKind KindOfCode(int code) {
  constexpr int kCannotRun = 126, kCannotExec = 127;  // of the shell, and of the child before it became the trainer
  if (code == kExitStale) return v1::PREEMPTED;
  if (code == kCannotRun || code == kCannotExec) return v1::LAUNCH_FAILED;
  const CauseFacts* facts = CauseOfExit(code);
  return facts == nullptr ? v1::USER_CODE : static_cast<v1::CauseKind>(facts->kind);
}

std::string ReadFailureDetail(const std::string& path) {
  std::ifstream file(path);
  std::string text(kFailureFileLimit, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  const nlohmann::json failure = nlohmann::json::parse(text, nullptr, false);
  if (!failure.is_object() || !failure.contains("detail") || !failure["detail"].is_string()) return {};
  return CutUtf8(failure["detail"].get<std::string>(), 1000);
}

std::string Clean(std::string_view bytes) {
  return StripControlChars(bytes, ControlChars::kQuestionMark);
}

std::string OneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

int64_t CountIn(const std::string& path) {
  std::ifstream file(path);
  std::string name;
  int64_t value = 0;
  while (file >> name >> value) {
    if (name == "oom_kill") return value;
  }
  return -1;
}

}  // namespace

int64_t OutOfMemoryKills() {
  std::ifstream groups("/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), group = line.substr(second + 1);
    int64_t count = -1;
    if (controllers.empty()) count = CountIn(absl::StrCat("/sys/fs/cgroup", group, "/memory.events"));
    if (controllers.find("memory") != std::string::npos)
      count = CountIn(absl::StrCat("/sys/fs/cgroup/memory", group, "/memory.oom_control"));
    if (count >= 0) return count;
  }
  return 0;
}

std::string LogTail(const std::string& log_path, size_t limit) {
  std::ifstream file(log_path, std::ios::ate | std::ios::binary);
  if (!file) return {};
  const auto size = static_cast<int64_t>(file.tellg());
  const int64_t begin = std::max<int64_t>(0, size - static_cast<int64_t>(limit));
  file.seekg(begin);
  std::string text(static_cast<size_t>(size - begin), '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (begin > 0) {
    if (const size_t newline = text.find_first_of("\r\n"); newline != std::string::npos) text.erase(0, newline + 1);
  }
  // The states of a progress bar, each on a line of its own.
  absl::StrReplaceAll({{"\r\n", "\n"}, {"\r", "\n"}}, &text);
  return Clean(text);
}

std::optional<v1::FailureCause> ExplainExit(const ExitStatus& status, const std::string& failure_file,
                                            const std::string& log_path, int64_t out_of_memory_kills_before) {
  if (status.signal == 0 && status.code == kExitFinished) return std::nullopt;
  v1::FailureCause cause;
  cause.set_retryable(true);
  cause.set_signal(status.signal);
  cause.set_exit_code(status.code);
  cause.set_log_tail(LogTail(log_path));
  if (status.signal == SIGKILL && OutOfMemoryKills() > out_of_memory_kills_before) {
    cause.set_kind(v1::OUT_OF_MEMORY);
    cause.set_detail("killed by the kernel: out of memory");
    return cause;
  }
  if (status.signal != 0) {
    cause.set_kind(v1::SIGNAL);
    // A trainer that has crashed left the place (worker/trainer/crash_report.h).
    const std::string place = OneLine(Clean(ReadFailureDetail(failure_file)));
    cause.set_detail(absl::StrCat("killed by signal ", status.signal, " (", strsignal(status.signal), ")",
                                  place.empty() ? "" : ": ", place));
    return cause;
  }
  cause.set_kind(KindOfCode(status.code));
  const CauseFacts& facts = FactsOf(static_cast<CauseKind>(cause.kind()));
  cause.set_retryable(facts.retryable && status.code != kExitDoNotRestart);
  std::string detail = OneLine(Clean(ReadFailureDetail(failure_file)));
  if (detail.empty() && status.code == 127) detail = "the trainer could not be started";
  if (detail.empty()) detail = absl::StrCat("exit code ", status.code);
  cause.set_detail(detail);
  return cause;
}

}  // namespace athanor::agent
