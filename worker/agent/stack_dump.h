// What a process that hangs is doing: the stacks of its threads by eu-stack where it is installed, else what /proc
// tells.
#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace athanor::agent {

// Blocks for at most `limit`. At most 64 KiB.
std::string DumpStacks(int64_t pid, absl::Duration limit);

}  // namespace athanor::agent
