// The answers that were given, by request key, so that a repetition gets the same one: so many and for so long.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "server/core/cluster_state.h"

namespace athanor::core {

class RequestMemory {
 public:
  // `entries` are the state's; nobody else changes them.
  RequestMemory(std::map<std::string, RequestEntry>& entries, int64_t most, absl::Duration longest);

  const RequestEntry* Find(const std::string& key) const;  // never for an empty key
  void Remember(RequestEntry entry);
  // Keys that are too old or too many by now; they are gone then.
  std::vector<std::string> Forget(absl::Time now);
  absl::Time NextToForget() const;

 private:
  std::map<std::string, RequestEntry>& entries_;
  const int64_t most_;
  const absl::Duration longest_;
  std::set<std::pair<absl::Time, std::string>> by_age_;  // oldest first
};

}  // namespace athanor::core
