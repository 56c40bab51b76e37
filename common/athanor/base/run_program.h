// Another program's output, within a limit of bytes and of time.
//
//   RunProgram({"git", "-C", folder, "status"}, {.limit = absl::Seconds(5)})
//
// Thread-safe; blocks.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace athanor {

struct RunProgramOptions {
  absl::Duration limit = absl::Seconds(10);
  size_t max_bytes = size_t{16} << 20;
  std::vector<std::string> environment;  // "NAME=value", beside this process's own
  bool errors_too = false;               // its standard error belongs to the output; else it is dropped
};

struct ProgramOutput {
  std::string text;       // what it wrote to its standard output;
  bool complete = false;  // it closed its output within both limits; otherwise it was killed
  int exit_code = -1;     // -1: by a signal
};

// `command[0]` is looked up in PATH; no shell is involved. NOT_FOUND when there is no such program; other codes name
// what the kernel refused.
absl::StatusOr<ProgramOutput> RunProgram(const std::vector<std::string>& command, const RunProgramOptions& options);

}  // namespace athanor
