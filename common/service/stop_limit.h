// A stop that hangs (a full disk, a peer that does not answer) ends all the same.
#pragma once

#include "absl/time/time.h"

namespace athanor {

inline constexpr int kExitStopHung = 75;

// Ends the process with kExitStopHung and one line on stderr unless it has ended by itself within `limit` (rounded up
// to a second). Called once, from the thread that stops the program.
void LimitStop(const char* program, absl::Duration limit);

}  // namespace athanor
