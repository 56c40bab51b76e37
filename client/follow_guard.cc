#include "client/follow_guard.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>

#include "client/exit_codes.h"

namespace athanor {
namespace {

constexpr int kEndWithinMs = 500;

int signal_pipe[2] = {-1, -1};

void OnInterrupt(int) {
  const int saved = errno;
  const char byte = 0;
  if (write(signal_pipe[1], &byte, 1) < 0) signal_pipe[1] = -1;
  errno = saved;
}

void Handle(int number, void (*handler)(int), int flags) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigaction(number, &action, nullptr);
}

}  // namespace

FollowGuard::FollowGuard(std::initializer_list<int> outputs) : outputs_(outputs) {
  if (pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) != 0 || pipe2(stop_pipe_, O_CLOEXEC | O_NONBLOCK) != 0) return;
  thread_ = std::thread([this] { Run(); });
  Handle(SIGINT, OnInterrupt, static_cast<int>(SA_RESETHAND | SA_RESTART));
}

FollowGuard::~FollowGuard() {
  Handle(SIGINT, SIG_DFL, 0);
  const char byte = 0;
  if (thread_.joinable() && write(stop_pipe_[1], &byte, 1) == 1) thread_.join();
  for (const int fd : {signal_pipe[0], signal_pipe[1], stop_pipe_[0], stop_pipe_[1]}) {
    if (fd >= 0) close(fd);
  }
}

void FollowGuard::Run() {
  pthread_setname_np(pthread_self(), "athanor-follow");
  std::vector<pollfd> watched = {{stop_pipe_[0], POLLIN, 0}, {signal_pipe[0], POLLIN, 0}};
  for (const int fd : outputs_) watched.push_back({fd, 0, 0});
  while (poll(watched.data(), watched.size(), -1) <= 0) {
  }
  if (watched[0].revents != 0) return;
  interrupted_ = watched[1].revents != 0;
  reader_gone_ = !interrupted_;
  cancellation_.Cancel();
  pollfd stop = {stop_pipe_[0], POLLIN, 0};
  if (poll(&stop, 1, kEndWithinMs) > 0) return;
  _exit(interrupted_ ? kDetached : kReaderGone);  // its thread waits where nothing can wake it, such as in a write
}

}  // namespace athanor
