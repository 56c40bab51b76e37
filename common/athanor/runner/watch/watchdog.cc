#include "athanor/runner/watch/watchdog.h"

#include <pthread.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"

namespace athanor {
namespace {

int64_t MonotonicNanos() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

Watchdog::Watchdog(absl::Duration limit, Callback callback, Excuse excuse)
    : limit_(limit), callback_(std::move(callback)), excuse_(std::move(excuse)), fed_nanos_(MonotonicNanos()) {
  if (limit <= absl::ZeroDuration() || limit == absl::InfiniteDuration() || callback_ == nullptr) return;
  thread_ = std::thread([this] { Run(); });
  pthread_setname_np(thread_.native_handle(), "athanor-watchdo");
}

Watchdog::~Watchdog() {
  Stop();
}

void Watchdog::Stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Watchdog::Feed(const char* doing, int64_t step) {
  step_.store(step, std::memory_order_relaxed);
  Feed(doing);
}

void Watchdog::Feed(const char* doing) {
  doing_.store(doing, std::memory_order_relaxed);
  fed_nanos_.store(MonotonicNanos(), std::memory_order_release);
}

void Watchdog::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  const int64_t limit = absl::ToInt64Nanoseconds(limit_);
  while (!closing_) {
    const int64_t idle = MonotonicNanos() - fed_nanos_.load(std::memory_order_acquire);
    if (idle >= limit) {
      lock.unlock();
      if (excuse_ != nullptr && excuse_()) {
        fed_nanos_.store(MonotonicNanos(), std::memory_order_release);
        lock.lock();
        continue;
      }
      callback_(absl::StrCat("nothing finished for ", absl::FormatDuration(absl::Nanoseconds(idle)), " after step ",
                             step_.load(), ", while: ", doing_.load()));
      return;
    }
    wake_.wait_for(lock, std::chrono::nanoseconds(limit - idle));
  }
}

}  // namespace athanor
