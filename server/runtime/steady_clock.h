// Wall time at start plus steady time since: no decision changes when somebody sets the clock. Thread-safe.
#pragma once

#include <chrono>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace athanor {

class SteadyClock {
 public:
  absl::Time Now() const { return wall_ + absl::FromChrono(std::chrono::steady_clock::now() - steady_); }

 private:
  const absl::Time wall_ = absl::Now();
  const std::chrono::steady_clock::time_point steady_ = std::chrono::steady_clock::now();
};

}  // namespace athanor
