// A thread that runs what is posted to it, in order: what may block (files, processes), so that the loop never does.
//
//   TaskThread files("athanor-files");
//   files.Post([] { ... });
//
// Thread-safe. Destruction waits for the task that runs and drops the rest.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace athanor::agent {

class TaskThread {
 public:
  explicit TaskThread(const char* name);
  ~TaskThread();
  TaskThread(const TaskThread&) = delete;
  // False when kMostTasks wait already.
  bool Post(std::function<void()> task);

  static constexpr size_t kMostTasks = 65536;

 private:
  void Run(const char* name);

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;  // guarded by mutex_
  bool closing_ = false;                     // guarded by mutex_
  std::thread thread_;
};

}  // namespace athanor::agent
