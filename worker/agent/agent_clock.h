// The clock of an agent's leases and deadlines: steady, so that a corrected wall clock ends none.
#pragma once

#include <chrono>

#include "absl/time/time.h"

namespace athanor::agent {

inline absl::Time AgentClock() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace athanor::agent
