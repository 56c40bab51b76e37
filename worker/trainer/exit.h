// How a trainer ends: with an exit code of contract/exit_codes.h and, unless it has finished, a line of JSON in
// $ATHANOR_FAILURE_FILE: {"kind": "user_code", "detail": "..."}.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "athanor/contract/exit_codes.h"

namespace athanor {

// Says where EndProcess() writes; before any other call. Also turns an exception that nobody caught, on any thread,
// into an end with kExitUserCode or kExitOutOfMemory, and reports crashes (crash_report.h).
void SetUpExit(const std::string& failure_file);

// Name of the cause that the agent reports for it: "user_code" …
std::string CauseName(TrainerExit code);

// The code for an error of joining or training: its failure kind (athanor/torch/status.h) when it has one, else
// its status code.
TrainerExit ExitCodeOf(const absl::Status& status);

// Writes the failure file, flushes, and ends the process without destructors: unloading LibTorch takes longer than
// anything after it could need, and threads may hang in a collective. Any thread; the first call wins.
[[noreturn]] void EndProcess(TrainerExit code, const std::string& detail);

}  // namespace athanor
