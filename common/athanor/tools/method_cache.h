// Remembers what an expensive method has returned, per object. The cache is a member: it goes away with its object, so
// nothing is kept alive by being remembered.
//
//   class Model {
//     double Score(int64_t index) const { return scores_.Get(index, [&] { return ExpensiveScore(index); }); }
//     mutable MethodCache<int64_t, double> scores_{128};
//   };
//
// Keys of several arguments: std::tuple. Thread-safe; two threads may compute the same value at once, the first one
// stays.
#pragma once

#include <cstddef>
#include <list>
#include <map>
#include <mutex>
#include <utility>

namespace athanor {

template <class Key, class Value>
class MethodCache {
 public:
  // At most `capacity` results; the one unused for longest goes first. 0: no limit.
  explicit MethodCache(size_t capacity = 128) : capacity_(capacity) {}

  // The remembered result, else compute()'s. An exception of compute() is not remembered.
  template <class Compute>
  Value Get(const Key& key, Compute&& compute) {
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = index_.find(key); found != index_.end()) {
        entries_.splice(entries_.begin(), entries_, found->second);
        ++hits_;
        return found->second->second;
      }
    }
    Value value = std::forward<Compute>(compute)();
    const std::lock_guard lock(mutex_);
    ++misses_;
    if (const auto found = index_.find(key); found != index_.end()) return found->second->second;
    entries_.emplace_front(key, value);
    index_[key] = entries_.begin();
    if (capacity_ > 0 && entries_.size() > capacity_) {
      index_.erase(entries_.back().first);
      entries_.pop_back();
    }
    return value;
  }

  void Clear() {
    const std::lock_guard lock(mutex_);
    entries_.clear();
    index_.clear();
  }
  size_t size() const {
    const std::lock_guard lock(mutex_);
    return entries_.size();
  }
  size_t hits() const {
    const std::lock_guard lock(mutex_);
    return hits_;
  }
  size_t misses() const {
    const std::lock_guard lock(mutex_);
    return misses_;
  }

 private:
  using Entries = std::list<std::pair<Key, Value>>;
  const size_t capacity_;
  mutable std::mutex mutex_;
  Entries entries_;  // newest first
  std::map<Key, typename Entries::iterator> index_;
  size_t hits_ = 0, misses_ = 0;
};

}  // namespace athanor
