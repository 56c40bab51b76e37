#include "athanor/checkpoint/retention.h"

#include <algorithm>
#include <functional>

namespace athanor {

std::vector<int64_t> StepsToDelete(std::vector<int64_t> steps, int keep_latest_k, const std::set<int64_t>& pinned) {
  if (keep_latest_k <= 0) return {};
  std::sort(steps.begin(), steps.end(), std::greater<>());
  std::vector<int64_t> gone;
  for (size_t i = static_cast<size_t>(keep_latest_k); i < steps.size(); ++i) {
    if (!pinned.contains(steps[i])) gone.push_back(steps[i]);
  }
  return gone;
}

}  // namespace athanor
