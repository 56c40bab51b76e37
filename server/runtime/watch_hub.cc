#include "server/runtime/watch_hub.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "common/service/channel.h"
#include "server/convert/proto_convert.h"

namespace athanor {
namespace {

constexpr absl::Duration kPace = absl::Milliseconds(50);
constexpr int32_t kEventsAtOnce = 200;
constexpr int64_t kEventBytesAtOnce = kMaxPageBytes / 2;

// The next events; true when more are waiting. One that the store cannot read is told in place of all behind it.
bool AddEvents(MetadataStore& store, const core::JobId& job, int64_t& after, v1::WatchJobResponse& response) {
  const auto events = store.ReadEvents(job, after, kEventsAtOnce);
  if (!events.ok()) {
    if (after == std::numeric_limits<int64_t>::max()) return false;  // told before
    after = std::numeric_limits<int64_t>::max();
    core::JobEventEntry unreadable{
        job, after, absl::UnixEpoch(), "UnreadableEvent", 0, -1, std::string(events.status().message())};
    *response.add_events() = ToProto(unreadable);
    return false;
  }
  int64_t bytes = 0;
  for (const core::JobEventEntry& event : *events) {
    if (bytes >= kEventBytesAtOnce) return true;
    *response.add_events() = ToProto(event);
    bytes += static_cast<int64_t>(response.events().rbegin()->ByteSizeLong());
    after = event.sequence;
  }
  return static_cast<int32_t>(events->size()) == kEventsAtOnce;
}

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
      const bool more = AddEvents(store, entry.job, entry.after_event, response);
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
