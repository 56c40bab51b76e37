#include "athanor/tools/catch.h"

#include <csignal>
#include <cstdio>
#include <fstream>
#include <typeinfo>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace athanor {
namespace {

bool DebuggerAttached() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    absl::string_view text = line;
    int pid = 0;
    if (absl::ConsumePrefix(&text, "TracerPid:")) return absl::SimpleAtoi(text, &pid) && pid != 0;
  }
  return false;
}

}  // namespace

void PrintCaughtError(const CaughtError& error) {
  std::fprintf(stderr, "%s: %s\n", error.what.c_str(), error.message.c_str());
}

namespace catch_internal {

absl::Status ToStatus(const std::string& what, const std::exception& error, const ErrorCallback& callback) {
  // LibTorch appends a whole backtrace.
  const std::string text = error.what();
  const CaughtError caught{what, text.substr(0, text.find('\n'))};
  if (callback) callback(caught);
  return absl::UnknownError(absl::StrCat(caught.what, ": ", caught.message));
}

void StopInDebugger(const std::exception& error) {
  std::fprintf(stderr, "debug: %s: %s\n", typeid(error).name(), error.what());
  if (DebuggerAttached()) std::raise(SIGTRAP);
}

}  // namespace catch_internal
}  // namespace athanor
