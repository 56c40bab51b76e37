#include "worker/agent/stack_dump.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "athanor/base/run_program.h"
#include "athanor/base/utf8_text.h"

namespace athanor::agent {
namespace {

constexpr size_t kLimit = 60 * 1024;

std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string FromProc(int64_t pid) {
  std::string text;
  std::error_code error;
  for (const auto& thread : std::filesystem::directory_iterator(absl::StrCat("/proc/", pid, "/task"), error)) {
    const std::string status = ReadAll(thread.path() / "status");
    const size_t state = status.find("State:");
    absl::StrAppend(&text, "thread ", thread.path().filename().string(), " ", ReadAll(thread.path() / "comm"), "  ",
                    state == std::string::npos ? "" : status.substr(state, status.find('\n', state) - state),
                    "  waits in ", ReadAll(thread.path() / "wchan"), "\n", ReadAll(thread.path() / "stack"));
    if (text.size() > kLimit) break;
  }
  return text;
}

std::string FromTool(int64_t pid, absl::Duration limit) {
  const auto output =
      RunProgram({"eu-stack", "-p", absl::StrCat(pid), "-n", "24"}, {.limit = limit, .max_bytes = kLimit});
  return output.ok() ? output->text : "";
}

}  // namespace

std::string DumpStacks(int64_t pid, absl::Duration limit) {
  std::string text = FromTool(pid, limit);
  if (text.size() < 32) text = FromProc(pid);
  return CutUtf8(text, kLimit);
}

}  // namespace athanor::agent
