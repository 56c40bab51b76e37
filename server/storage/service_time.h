// Wall clocks are set, also between two runs of the coordinator. The store therefore holds service time: it starts as
// the wall's when the store is made and from then on only passes. What a run shows and decides by is service time plus
// the constant by which the wall was ahead of it when this run began: no back-off, no memory and no account changes
// when somebody sets the clock, and the history stays in order.
#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace athanor {

struct ClockReading {
  absl::Time wall;
  absl::Duration boot;  // since this machine started, sleep included; nobody sets it
  std::string boot_id;  // tells one start of a machine from another
};
ClockReading ReadClocks();

// How long ago `then` was. Exact within one start of a machine, whatever the wall says. Else the wall's difference,
// between nothing and kLongestGap: more than that is taken for a clock that was set.
inline constexpr absl::Duration kLongestGap = absl::Hours(12);
absl::Duration Elapsed(const ClockReading& then, const ClockReading& now);

// Between the times of this run and those in the store, Unix nanoseconds. The two infinities are the extremes of int64.
struct TimeFrame {
  absl::Duration wall_ahead;
  int64_t Stored(absl::Time shown) const;
  absl::Time Shown(int64_t stored) const;
};

}  // namespace athanor
