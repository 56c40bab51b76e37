#include "worker/agent/rank_memory.h"

#include <algorithm>
#include <iterator>

namespace athanor::agent {
namespace {

constexpr size_t kRemembered = 8192;

}  // namespace

void RankMemory::AddEnded(const RankKey& key) {
  if (ended_.insert(key).second) order_.push_back(key);
  while (order_.size() > kRemembered) {
    ended_.erase(order_.front());
    order_.pop_front();
  }
}

void RankMemory::SawGeneration(const std::string& job, int32_t generation) {
  int32_t& newest = newest_[job];
  newest = std::max(newest, generation);
  if (newest_.size() <= kRemembered) return;
  // Any but this one: what runs here is seen again with its next generation.
  auto other = newest_.begin();
  newest_.erase(other->first == job ? std::next(other) : other);
}

int32_t RankMemory::NewestGeneration(const std::string& job) const {
  const auto it = newest_.find(job);
  return it == newest_.end() ? 0 : it->second;
}

}  // namespace athanor::agent
