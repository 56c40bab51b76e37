#include "server/runtime/watch_hub.h"

#include <algorithm>
#include <vector>

#include "server/storage/proto_convert.h"

namespace athanor {
namespace {

constexpr absl::Duration kPace = absl::Milliseconds(50);
constexpr int32_t kEventsAtOnce = 200;

}  // namespace

void WatchHub::Add(std::shared_ptr<Watcher> watcher, const core::JobId& job, int64_t after_event, absl::Time now) {
  std::lock_guard lock(mutex_);
  const Watcher* key = watcher.get();
  watchers_[key] = {std::move(watcher), job, after_event, true, true, now};
}

void WatchHub::Remove(const Watcher* watcher) {
  std::lock_guard lock(mutex_);
  watchers_.erase(watcher);
}

void WatchHub::Ready(const Watcher* watcher) {
  std::lock_guard lock(mutex_);
  if (auto it = watchers_.find(watcher); it != watchers_.end()) it->second.ready = true;
}

void WatchHub::Touch(const core::JobId& job) {
  std::lock_guard lock(mutex_);
  for (auto& [key, entry] : watchers_) {
    if (entry.job == job) entry.dirty = true;
  }
}

absl::Time WatchHub::NextFlush() const {
  std::lock_guard lock(mutex_);
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [key, entry] : watchers_) {
    if (entry.dirty && entry.ready) next = std::min(next, entry.not_before);
  }
  return next;
}

void WatchHub::Flush(const core::CoordinatorCore& core, MetadataStore& store, const JobDir& job_dir, absl::Time now) {
  std::vector<std::pair<std::shared_ptr<Watcher>, v1::WatchJobResponse>> outgoing;
  {
    std::lock_guard lock(mutex_);
    for (auto& [key, entry] : watchers_) {
      if (!entry.dirty || !entry.ready || entry.not_before > now) continue;
      v1::WatchJobResponse response;
      auto events = store.ReadEvents(entry.job, entry.after_event, kEventsAtOnce);
      if (events.ok()) {
        for (const core::JobEventEntry& event : *events) {
          *response.add_events() = ToProto(event);
          entry.after_event = event.sequence;
        }
      }
      const bool more = events.ok() && static_cast<int32_t>(events->size()) == kEventsAtOnce;
      auto job = core.state().jobs.find(entry.job);
      if (job != core.state().jobs.end()) {
        *response.mutable_job() = ToProto(core, job->second, job_dir(entry.job), /*detailed=*/true);
      }
      response.set_final(!more && (job == core.state().jobs.end() || core::IsFinal(job->second.state)));
      entry.dirty = more;
      entry.ready = false;
      entry.not_before = now + kPace;
      outgoing.emplace_back(entry.watcher, std::move(response));
    }
  }
  for (auto& [watcher, response] : outgoing) watcher->Send(std::move(response));
}

}  // namespace athanor
