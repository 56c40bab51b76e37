// Ends a command that follows something: at Ctrl-C, or when the reader of its output went away. Neither waits for the
// next event: a thread of its own ("athanor-follow") watches for both and cancels the stream that is open.
//
//   FollowGuard guard({STDOUT_FILENO});
//   RETURN_IF_ERROR(client->Watch(job, {.cancellation = &guard.cancellation()}, on_update));
//   if (guard.interrupted()) ...
//
// One at a time. The first Ctrl-C ends the command in order, a second one at once; so does half a second without an
// end after either.
#pragma once

#include <atomic>
#include <initializer_list>
#include <thread>
#include <vector>

#include "client/coordinator_client.h"

namespace athanor {

class FollowGuard {
 public:
  // `outputs`: descriptors whose readers are waited on.
  explicit FollowGuard(std::initializer_list<int> outputs);
  ~FollowGuard();
  FollowGuard(const FollowGuard&) = delete;
  FollowGuard& operator=(const FollowGuard&) = delete;

  Cancellation& cancellation() { return cancellation_; }
  bool interrupted() const { return interrupted_; }
  bool reader_gone() const { return reader_gone_; }

 private:
  void Run();

  const std::vector<int> outputs_;
  Cancellation cancellation_;
  std::atomic<bool> interrupted_{false}, reader_gone_{false};
  int stop_pipe_[2] = {-1, -1};
  std::thread thread_;
};

}  // namespace athanor
