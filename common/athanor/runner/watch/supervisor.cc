#include "athanor/runner/watch/supervisor.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <utility>

namespace athanor {
namespace {

// Signal handlers reach nothing but globals.
std::atomic<bool> installed{false};
std::atomic<int> first_signal{0};
static_assert(std::atomic<int>::is_always_lock_free);

void OnSignal(int number) {
  int none = 0;
  if (!first_signal.compare_exchange_strong(none, number)) _exit(128 + number);
}

}  // namespace

struct Supervisor::Handlers {
  struct sigaction terminate{};
  struct sigaction interrupt{};
};

Supervisor::Supervisor(std::unique_ptr<Handlers> earlier) : earlier_(std::move(earlier)) {}

absl::StatusOr<std::unique_ptr<Supervisor>> Supervisor::Install() {
  if (installed.exchange(true)) return absl::FailedPreconditionError("supervisor: one is installed already");
  first_signal.store(0);
  struct sigaction action{};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  auto earlier = std::make_unique<Handlers>();
  if (sigaction(SIGTERM, &action, &earlier->terminate) != 0 || sigaction(SIGINT, &action, &earlier->interrupt) != 0) {
    installed.store(false);
    return absl::InternalError("supervisor: sigaction failed");
  }
  return std::unique_ptr<Supervisor>(new Supervisor(std::move(earlier)));
}

Supervisor::~Supervisor() {
  sigaction(SIGTERM, &earlier_->terminate, nullptr);
  sigaction(SIGINT, &earlier_->interrupt, nullptr);
  installed.store(false);
}

bool Supervisor::StopRequested() const {
  return first_signal.load(std::memory_order_relaxed) != 0;
}
int Supervisor::signal() const {
  return first_signal.load();
}

}  // namespace athanor
