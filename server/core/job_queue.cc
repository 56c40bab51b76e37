#include "server/core/job_queue.h"

#include <iterator>

namespace athanor::core {

void JobQueue::Add(const JobEntry& job) {
  ordered_.insert(KeyOf(job));
  by_age_[job.spec.device].insert({job.submit_order, job.id});
  fresh_.push_back(job.id);
}

bool JobQueue::Remove(const JobEntry& job) {
  const Key key = KeyOf(job);
  if (const auto aside = parked_.find(ShapeOf(job)); aside != parked_.end()) {
    aside->second.erase(key);
    if (aside->second.empty()) parked_.erase(aside);
  }
  ordered_.erase(key);
  by_age_[job.spec.device].erase({job.submit_order, job.id});
  const auto head = heads_.find(job.spec.device);
  return head != heads_.end() && head->second == key;
}

bool JobQueue::Reserve(JobEntry& job) {
  if (ordered_.erase(KeyOf(job)) == 0) return false;
  job.reserved = true;
  ordered_.insert(KeyOf(job));
  return true;
}

void JobQueue::Park(const JobEntry& job) {
  ordered_.erase(KeyOf(job));
  by_age_[job.spec.device].erase({job.submit_order, job.id});
  parked_[ShapeOf(job)].insert(KeyOf(job));
}

void JobQueue::Unpark(const std::function<bool(const Shape&)>& fits) {
  for (auto it = parked_.begin(); it != parked_.end();) {
    if (!fits(it->first)) {
      ++it;
      continue;
    }
    for (const Key& key : it->second) {
      ordered_.insert(key);
      by_age_[std::get<0>(it->first)].insert({std::get<uint64_t>(key), std::get<JobId>(key)});
    }
    it = parked_.erase(it);
  }
}

std::optional<JobId> JobQueue::WaitsBehind(const JobEntry& job) const {
  const Key key = KeyOf(job);
  const auto head = heads_.find(job.spec.device);
  const bool behind = head != heads_.end() && key > head->second && ordered_.contains(head->second);
  return behind && ordered_.contains(key) ? std::optional(std::get<JobId>(head->second)) : std::nullopt;
}

std::optional<JobId> JobQueue::Oldest(const std::string& device) const {
  const auto jobs = by_age_.find(device);
  if (jobs == by_age_.end() || jobs->second.empty()) return std::nullopt;
  return jobs->second.begin()->second;
}

int32_t JobQueue::Length() const {
  size_t length = ordered_.size();
  for (const auto& [shape, keys] : parked_) length += keys.size();
  return static_cast<int32_t>(length);
}

int32_t JobQueue::Position(const JobEntry& job) const {
  const Key key = KeyOf(job);
  int64_t before = std::distance(ordered_.begin(), ordered_.lower_bound(key));
  for (const auto& [shape, keys] : parked_) before += std::distance(keys.begin(), keys.lower_bound(key));
  return static_cast<int32_t>(before) + 1;
}

}  // namespace athanor::core
