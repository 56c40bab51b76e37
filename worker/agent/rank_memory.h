// Which ranks have ended here and which generations of each job are known to have run: what a launch that comes late,
// twice or out of older records is told apart by. Bounded; the oldest is forgotten first. Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>

#include "worker/agent/rank_key.h"

namespace athanor::agent {

class RankMemory {
 public:
  void AddEnded(const RankKey& key);
  bool Ended(const RankKey& key) const { return ended_.contains(key); }
  // `generation` of `job` has run, here or elsewhere.
  void SawGeneration(const std::string& job, int32_t generation);
  // 0: none is known.
  int32_t NewestGeneration(const std::string& job) const;

 private:
  std::set<RankKey> ended_;
  std::deque<RankKey> order_;
  std::map<std::string, int32_t> newest_;
};

}  // namespace athanor::agent
