// Durations as people read them in events and explanations: to the millisecond, "1m2.5s".
#pragma once

#include <string>

#include "absl/time/time.h"

namespace athanor::core {

inline std::string DurationText(absl::Duration duration) {
  return absl::FormatDuration(absl::Trunc(duration, absl::Milliseconds(1)));
}

}  // namespace athanor::core
