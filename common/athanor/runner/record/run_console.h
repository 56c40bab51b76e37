// The run on the terminal of whoever started it: log lines on standard error and, where that is a terminal, a line of
// progress below them that is written over again.
//
//   RunConsole console(RunConsole::Stderr());
//   console.Line("INFO", "2026-11-23 20:15:00,123 [INFO] …");
//   console.Progress(progress);      // [=====>              ]  25% 500/2000  loss 0.1234  4120 samples/s  eta 1m04s
//
// Colours only on a terminal, without NO_COLOR, and unless TERM is dumb. Not thread-safe.
#pragma once

#include <cstdio>
#include <string>

#include "absl/strings/string_view.h"
#include "athanor/runner/runner_hooks.h"

namespace athanor {

struct ConsoleOptions {
  std::FILE* stream = nullptr;  // outlives the console
  bool is_terminal = false;
  bool colours = false;
};

class RunConsole {
 public:
  explicit RunConsole(const ConsoleOptions& options) : options_(options) {}
  ~RunConsole();
  static ConsoleOptions Stderr();

  void Line(absl::string_view level, absl::string_view line);
  // Does nothing where there is no terminal.
  void Progress(const ProgressReport& progress);

 private:
  void Erase();

  const ConsoleOptions options_;
  bool open_ = false;  // a progress line stands at the end
};

// "45 s", "3m07s", "2h05m", "12d03h".
std::string DurationText(double seconds);
// The line of Progress().
std::string ProgressText(const ProgressReport& progress);

}  // namespace athanor
