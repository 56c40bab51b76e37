// Watchers of jobs. Each gets the whole job when it changed (at most every 50 ms) and every event, in order; a slow
// reader gets the newest job next and misses no event. Thread: core loop, except Ready() and Remove().
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "athanor/v1/job_service.pb.h"
#include "server/core/coordinator_core.h"
#include "server/storage/metadata_store.h"

namespace athanor {

class Watcher {
 public:
  virtual ~Watcher() = default;
  // Called on the core loop, only while the watcher is ready; it is not ready again until it says so.
  virtual void Send(v1::WatchJobResponse response) = 0;
};

class WatchHub {
 public:
  using JobDir = std::function<std::string(const core::JobId&)>;
  void Add(std::shared_ptr<Watcher> watcher, const core::JobId& job, int64_t after_event, absl::Time now);
  void Remove(const Watcher* watcher);
  void Ready(const Watcher* watcher);
  void Touch(const core::JobId& job);
  void Flush(const core::CoordinatorCore& core, MetadataStore& store, const JobDir& job_dir, absl::Time now);
  absl::Time NextFlush() const;

 private:
  struct Entry {
    std::shared_ptr<Watcher> watcher;
    core::JobId job;
    int64_t after_event = 0;
    bool ready = true;
    bool dirty = true;
    absl::Time not_before = absl::InfinitePast();
  };
  mutable std::mutex mutex_;
  std::map<const Watcher*, Entry> watchers_;
};

}  // namespace athanor
