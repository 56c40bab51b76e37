// Calls of clients that wait for the core's Reply. Thread-safe. Every call is answered exactly once: by the core, or at
// shutdown.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <unordered_map>

#include "absl/status/status.h"
#include "server/core/effect.h"

namespace athanor {

class CallTable {
 public:
  using Callback = std::function<void(const core::Reply&)>;
  core::CallId Add(Callback callback);
  void Answer(const core::Reply& reply);  // a call that is not there (any more) is ignored
  void AnswerAll(const absl::Status& status);
  core::CallId NewId() { return next_.fetch_add(1); }

 private:
  std::atomic<core::CallId> next_{1};
  std::mutex mutex_;
  std::unordered_map<core::CallId, Callback> waiting_;
};

}  // namespace athanor
