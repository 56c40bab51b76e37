// The one thread that owns CoordinatorCore and writes the store: takes a batch of events, steps each, commits all
// records in one synced write, then releases the effects in order. Reads run here too, between batches, on the state
// itself.
//
// When the store has no space the loop keeps the batch and tries again until there is: nothing is answered that is not
// durable, new verbs are refused with RESOURCE_EXHAUSTED, training goes on. Any other failure of the store ends the
// process (exit code 75): restart from disk is the only roll-back.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "server/core/coordinator_core.h"
#include "server/observability/coordinator_metrics.h"
#include "server/runtime/agent_sessions.h"
#include "server/runtime/call_table.h"
#include "server/runtime/steady_clock.h"
#include "server/runtime/watch_hub.h"
#include "server/storage/metadata_store.h"

namespace athanor {

struct CoreLoopOptions {
  core::CoreOptions core;
  std::string checkpoint_root;
  size_t queue_limit = 65536;  // beyond it verbs are refused; agents' messages wait in their own streams
};

class CoreLoop {
 public:
  CoreLoop(CoreLoopOptions options, std::unique_ptr<MetadataStore> store, core::ClusterState recovered,
           CoordinatorMetrics* metrics);
  ~CoreLoop();
  void Start();
  // From now on nothing waits for room on the disk: what cannot be stored at once is answered so. Reads go on.
  void Drain();
  // Answers what waits with UNAVAILABLE and joins the thread.
  void Stop();

  // Thread-safe. `done` (optional) runs after the event's records are durable.
  void Post(core::Event event, std::function<void()> done = nullptr);
  // A client's verb: `callback` gets the one answer. Refuses when the queue is full or the store has no space.
  void PostVerb(const std::function<core::Event(core::CallId)>& make, CallTable::Callback callback);
  // Runs `read` on the loop's thread between batches, and while a batch waits for space on the disk.
  using Read = std::function<void(const core::CoordinatorCore&, absl::Time now)>;
  void PostRead(Read read);

  AgentSessions& sessions() { return sessions_; }
  CallTable& calls() { return calls_; }
  WatchHub& watches() { return watches_; }
  MetadataStore& store() { return *store_; }
  const SteadyClock& clock() const { return clock_; }
  std::string JobDir(const core::JobId& job) const { return options_.checkpoint_root + "/" + job.str(); }
  // OK, or why the store cannot be written now. Thread-safe.
  absl::Status StoreStatus() const;

 private:
  struct Item {
    core::Event event;
    std::function<void()> done;
    Read read;
  };
  void Run();
  void WaitForWork(absl::Time now);
  void Process(std::deque<Item>& items, absl::Time now);
  void Persist(std::vector<core::Effect>& effects, WriteBatch& batch);
  void CommitAndRelease(const WriteBatch& batch, std::vector<core::Effect>& effects,
                        std::vector<std::function<void()>>& done);
  void CommitOrWait(const WriteBatch& batch);
  bool ReadUntil(absl::Time until);
  void SetStoreStatus(absl::Status status);
  void Sample(absl::Time now);

  const CoreLoopOptions options_;
  std::unique_ptr<MetadataStore> store_;
  CoordinatorMetrics* const metrics_;
  SteadyClock clock_;
  core::CoordinatorCore core_;
  AgentSessions sessions_;
  CallTable calls_;
  WatchHub watches_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Item> queue_;
  absl::Status store_status_;
  std::atomic<bool> stopping_{false}, draining_{false};
  absl::Time sampled_ = absl::InfinitePast();
  std::thread thread_;
};

}  // namespace athanor
