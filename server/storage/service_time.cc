#include "server/storage/service_time.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>

#include "absl/time/clock.h"

namespace athanor {

ClockReading ReadClocks() {
  static const std::string& boot_id = *[] {
    auto* id = new std::string;
    std::ifstream("/proc/sys/kernel/random/boot_id") >> *id;
    return id;
  }();
  // The kernel's own answer: programs that run under another time replace the library's function.
  timespec boot = {};
  if (syscall(SYS_clock_gettime, CLOCK_BOOTTIME, &boot) != 0) boot = {};
  return {absl::Now(), absl::DurationFromTimespec(boot), boot_id};
}

absl::Duration Elapsed(const ClockReading& then, const ClockReading& now) {
  if (!then.boot_id.empty() && then.boot_id == now.boot_id && now.boot >= then.boot) return now.boot - then.boot;
  return std::clamp(now.wall - then.wall, absl::ZeroDuration(), absl::Duration(kLongestGap));
}

int64_t TimeFrame::Stored(absl::Time shown) const {
  return absl::ToUnixNanos(shown - wall_ahead);  // saturates at the two infinities
}

absl::Time TimeFrame::Shown(int64_t stored) const {
  if (stored == std::numeric_limits<int64_t>::min()) return absl::InfinitePast();
  if (stored == std::numeric_limits<int64_t>::max()) return absl::InfiniteFuture();
  return absl::FromUnixNanos(stored) + wall_ahead;
}

}  // namespace athanor
