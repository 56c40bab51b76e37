// Calls back when nothing has been finished for too long: a hung collective, a dead disk, an endless loop in user code.
//
//   Watchdog watchdog(absl::Minutes(10), [&](const std::string& what) { group->Abort(); });
//   watchdog.Feed("step", 17);    // cheap: after each step
//   watchdog.Feed("evaluation");  // within a step
//
// Feed() on any thread. The call-back runs once, on the watchdog's own thread ("athanor-watchdog").
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "absl/time/time.h"

namespace athanor {

class Watchdog {
 public:
  using Callback = std::function<void(const std::string& what)>;
  using Excuse = std::function<bool()>;
  // An infinite or non-positive limit: no thread, no call-back. `excuse`, asked on the watchdog's thread when the limit
  // is reached, may say that there is a good reason to wait: the limit counts anew then.
  Watchdog(absl::Duration limit, Callback callback, Excuse excuse = nullptr);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;

  // Something was finished: now `doing` (a literal) begins. The limit counts from here.
  void Feed(const char* doing, int64_t step);
  void Feed(const char* doing);
  // Nothing is watched from here on; returns when a call-back that runs has returned. Not from the call-back.
  void Stop();

 private:
  void Run();

  const absl::Duration limit_;
  const Callback callback_;
  const Excuse excuse_;
  std::atomic<int64_t> fed_nanos_;
  std::atomic<const char*> doing_{"start"};
  std::atomic<int64_t> step_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool closing_ = false;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace athanor
