// What needs LibTorch, which the command line does not have: athanor-trainer does it.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "athanor/v1/job.pb.h"

namespace athanor {

// Beside this program when installed, in the tree it was built in, else by its name, looked up in PATH.
std::string TrainerProgram();

// Lets the job's task check its options, here. INVALID_ARGUMENT with what the task says. OK with `unchecked` set where
// that could not be done: no trainer program, no such task library on this machine.
absl::Status CheckTaskOptions(const v1::JobSpec& spec, std::string& unchecked);

}  // namespace athanor
