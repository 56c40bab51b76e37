// Which checkpoints of a run may go, for programs without the service (there the coordinator decides). Pure.
#pragma once

#include <cstdint>
#include <set>
#include <vector>

namespace athanor {

// `steps`: complete checkpoints, any order. Keeps the newest `keep_latest_k` (0: all) and the `pinned` ones.
std::vector<int64_t> StepsToDelete(std::vector<int64_t> steps, int keep_latest_k, const std::set<int64_t>& pinned);

}  // namespace athanor
