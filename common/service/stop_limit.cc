#include "common/service/stop_limit.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace athanor {
namespace {

const char* stopping_program = "";

// Runs in a signal handler: plain calls only.
void OnAlarm(int) {
  static constexpr char kText[] = ": the stop hung and was cut short; what was acknowledged is on the disk\n";
  if (write(STDERR_FILENO, stopping_program, strlen(stopping_program)) < 0 ||
      write(STDERR_FILENO, kText, sizeof kText - 1) < 0)
    _exit(kExitStopHung);
  _exit(kExitStopHung);
}

}  // namespace

void LimitStop(const char* program, absl::Duration limit) {
  stopping_program = program;
  struct sigaction action = {};
  action.sa_handler = OnAlarm;
  sigaction(SIGALRM, &action, nullptr);
  alarm(static_cast<unsigned>(std::clamp<int64_t>(absl::ToInt64Seconds(limit + absl::Milliseconds(999)), 1, 86400)));
}

}  // namespace athanor
