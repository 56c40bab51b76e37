#include "server/core/request_memory.h"

namespace athanor::core {

RequestMemory::RequestMemory(std::map<std::string, RequestEntry>& entries, int64_t most, absl::Duration longest)
    : entries_(entries), most_(most), longest_(longest) {
  for (const auto& [key, entry] : entries_) by_age_.insert({entry.time, key});
}

const RequestEntry* RequestMemory::Find(const std::string& key) const {
  const auto it = key.empty() ? entries_.end() : entries_.find(key);
  return it == entries_.end() ? nullptr : &it->second;
}

void RequestMemory::Remember(RequestEntry entry) {
  by_age_.insert({entry.time, entry.key});
  std::string key = entry.key;
  entries_[std::move(key)] = std::move(entry);
}

std::vector<std::string> RequestMemory::Forget(absl::Time now) {
  std::vector<std::string> forgotten;
  while (!by_age_.empty()) {
    const auto& [time, key] = *by_age_.begin();
    if (static_cast<int64_t>(entries_.size()) <= most_ && time + longest_ > now) break;
    entries_.erase(key);
    forgotten.push_back(key);
    by_age_.erase(by_age_.begin());
  }
  return forgotten;
}

absl::Time RequestMemory::NextToForget() const {
  return by_age_.empty() ? absl::InfiniteFuture() : by_age_.begin()->first + longest_;
}

}  // namespace athanor::core
