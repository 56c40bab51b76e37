// The jobs that wait for slots: in order (reserved ones, then by priority, then by age), or parked with others of their
// shape, when they need more than the whole cluster has. Decides nothing; the pass that does is in scheduling.cc.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "server/core/cluster_state.h"

namespace athanor::core {

class JobQueue {
 public:
  using Key = std::tuple<bool, int32_t, uint64_t, JobId>;   // not reserved, -priority, submit order
  using Shape = std::tuple<std::string, int32_t, int32_t>;  // device, ranks, slots per rank
  static Key KeyOf(const JobEntry& job) { return {!job.reserved, -job.spec.priority, job.submit_order, job.id}; }
  static Shape ShapeOf(const JobEntry& job) { return {job.spec.device, job.spec.ranks, job.spec.slots_per_rank}; }

  void Add(const JobEntry& job);
  // True when it was the head that others waited behind. Its priority, order and reservation are those of Add().
  bool Remove(const JobEntry& job);
  // Goes first of its device kind from now on. False when it does not wait in order.
  bool Reserve(JobEntry& job);

  void Park(const JobEntry& job);
  bool HasParked(const Shape& shape) const { return parked_.contains(shape); }
  bool HasParked() const { return !parked_.empty(); }
  // Jobs of the shapes that `fits` says wait in order again.
  void Unpark(const std::function<bool(const Shape&)>& fits);

  // The head of a device kind after a pass: what comes later waits behind it.
  void ClearHeads() { heads_.clear(); }
  void SetHead(const JobEntry& job) { heads_[job.spec.device] = KeyOf(job); }
  bool IsBlocked(const std::string& device) const { return heads_.contains(device); }
  size_t Heads() const { return heads_.size(); }
  std::optional<JobId> WaitsBehind(const JobEntry& job) const;

  // Those that were added since the last call.
  std::vector<JobId> TakeFresh() { return std::exchange(fresh_, {}); }
  // The one in order that was submitted first.
  std::optional<JobId> Oldest(const std::string& device) const;

  const std::set<Key>& ordered() const { return ordered_; }
  bool Contains(const JobEntry& job) const { return ordered_.contains(KeyOf(job)); }
  bool empty() const { return ordered_.empty() && parked_.empty(); }
  int32_t Length() const;
  int32_t Position(const JobEntry& job) const;  // 1 = next

 private:
  std::set<Key> ordered_;
  std::map<Shape, std::set<Key>> parked_;
  std::map<std::string, Key> heads_;                                    // by device kind
  std::map<std::string, std::set<std::pair<uint64_t, JobId>>> by_age_;  // of `ordered_`, by device kind
  std::vector<JobId> fresh_;
};

}  // namespace athanor::core
