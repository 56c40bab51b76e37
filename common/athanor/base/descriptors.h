// File descriptors of a process: what every program of ours does about them at its start.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

namespace athanor {

// Opens /dev/null on each of 0, 1 and 2 that is closed. Without it the first files that a program opens get these
// numbers, and what it prints ends in them. Ends the process with code 1 where even that fails.
void OpenStandardDescriptors();

// In the main file of a program, outside functions: OpenStandardDescriptors() before anything else runs. In main() it
// would come too late: libraries open files while they are loaded.
#define ATHANOR_OPEN_STANDARD_DESCRIPTORS()                                                     \
  __attribute__((section(".preinit_array"), used)) static void (*open_standard_descriptors)() = \
      athanor::OpenStandardDescriptors

// Raises the soft limit of open files (RLIMIT_NOFILE) to the hard one, at most kMostDescriptors, and returns it.
// RESOURCE_EXHAUSTED when fewer than `least` remain; the message says how to get more.
absl::StatusOr<int64_t> RaiseDescriptorLimit(int64_t least);

// Programs that close "every descriptor" before they start another take minutes over a larger limit.
inline constexpr int64_t kMostDescriptors = 1 << 20;

}  // namespace athanor
