#include "server/runtime/call_table.h"

#include <utility>

namespace athanor {

core::CallId CallTable::Add(Callback callback) {
  const core::CallId id = NewId();
  std::lock_guard lock(mutex_);
  waiting_.emplace(id, std::move(callback));
  return id;
}

void CallTable::Answer(const core::Reply& reply) {
  Callback callback;
  {
    std::lock_guard lock(mutex_);
    auto it = waiting_.find(reply.call);
    if (it == waiting_.end()) return;
    callback = std::move(it->second);
    waiting_.erase(it);
  }
  callback(reply);
}

void CallTable::AnswerAll(const absl::Status& status) {
  std::unordered_map<core::CallId, Callback> all;
  {
    std::lock_guard lock(mutex_);
    all.swap(waiting_);
  }
  for (auto& [id, callback] : all) callback(core::Reply{.call = id, .status = status});
}

}  // namespace athanor
