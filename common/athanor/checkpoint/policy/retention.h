// Which checkpoints of a run may go, for programs without the service (there the coordinator decides). Pure.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace athanor {

// `steps`: complete checkpoints, any order. Keeps the newest `keep_latest_k` (0: all) and the `pinned` ones.
std::vector<int64_t> StepsToDelete(std::vector<int64_t> steps, int keep_latest_k, const std::set<int64_t>& pinned);

struct RetentionInput {
  std::vector<int64_t> steps;              // complete checkpoints, any order
  std::map<std::string, int64_t> aliases;  // after the save
  std::set<int64_t> abandoned;             // steps from which the save took a name such as "latest"
  int keep_latest_k = 0;                   // 0: everything stays
};

struct Retention {
  std::vector<int64_t> steps;        // to delete
  std::vector<std::string> aliases;  // history names to remove; their checkpoint may live on under another name
};

// The newest `keep_latest_k` of the history stay (checkpoints with a history name, save_plan.h, and those that have no
// name at all), and what another name means. An abandoned one without a name goes.
Retention ChooseRetention(const RetentionInput& input);

}  // namespace athanor
