// The part of a job that only its task can check: for `athanor job submit --dry-run`, which has no LibTorch.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace athanor {

// Reads a serialized JobSpec and lets the task read its options. Data is not read where the task uses TaskOptions; a
// task that does not sets itself up in full. Modules and packages that are on this machine are opened.
// INVALID_ARGUMENT: the job cannot work, with the option. Other codes say why nothing could be checked here: NOT_FOUND,
// for instance, no such task library on this machine.
absl::Status CheckJob(const std::string& spec_file);

}  // namespace athanor
