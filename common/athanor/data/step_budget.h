// How many updates a training split gets in one round of a run that is counted in steps.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

namespace athanor {

// The fair share of what is left of the run among the splits left in this round, but not more than one pass over the
// split (`loader_batches`; unset: unsized, no such limit). The last word of a round (`splits_left` <= 0) is all that is
// left.
//
//   SplitStepBudget(/*steps_left=*/9, /*splits_left=*/2, /*loader_batches=*/4, /*accum_steps=*/1)   // 4
inline int64_t SplitStepBudget(int64_t steps_left, int64_t splits_left, std::optional<int64_t> loader_batches,
                               int64_t accum_steps) {
  if (steps_left <= 0) return 0;
  if (splits_left <= 0) return steps_left;
  const int64_t fair = (steps_left + splits_left - 1) / splits_left;
  const int64_t pass = loader_batches ? (*loader_batches + accum_steps - 1) / accum_steps : fair;
  return std::min({fair, pass, steps_left});
}

}  // namespace athanor
