// Which checkpoints of a run may go: one rule, for programs without the service and for the coordinator. Pure.
//
// Of the checkpoints that take one of the `keep_latest_k` places the newest stay; what is pinned stays beyond them.
// What has no place stays while it is pinned or nobody says that it may go.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace athanor {

struct RetainedCheckpoint {
  int64_t step = 0;
  bool takes_place = true;  // counts among the newest keep_latest_k
  bool pinned = false;      // needed whatever its age: a name, a tag, a place to resume from
  bool expendable = false;  // goes at once when it is not pinned
};

struct RetentionDecision {
  std::vector<int64_t> remove;  // to delete, newest first
  std::vector<int64_t> beyond;  // lost their place to newer ones, newest first: what is pinned of them stays
};

// `checkpoints` are complete ones, in any order. `keep_latest_k` of 0 keeps all.
RetentionDecision ChooseRetention(std::vector<RetainedCheckpoint> checkpoints, int keep_latest_k);

// The rule of names, where no coordinator keeps them (athanor/checkpoint/alias_files.h).
struct NamedCheckpoints {
  std::vector<int64_t> steps;              // complete checkpoints, any order
  std::map<std::string, int64_t> aliases;  // after the save
  std::set<int64_t> abandoned;             // steps from which the save took a name such as "latest"
};

// Places are taken by the history: checkpoints with a history name (save_decision.h), and those that have no name at
// all. Another name pins; an abandoned one without a name is expendable.
std::vector<RetainedCheckpoint> ByNames(const NamedCheckpoints& named);

}  // namespace athanor
