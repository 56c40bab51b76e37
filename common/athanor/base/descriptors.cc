#include "athanor/base/descriptors.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace athanor {

void OpenStandardDescriptors() {
  for (int number = 0; number <= 2; ++number) {
    if (fcntl(number, F_GETFD) >= 0 || errno != EBADF) continue;
    // All lower numbers are taken: this one is what open() returns.
    if (open("/dev/null", number == 0 ? O_RDONLY : O_WRONLY) != number) _exit(1);
  }
}

absl::StatusOr<int64_t> RaiseDescriptorLimit(int64_t least) {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return absl::ErrnoToStatus(errno, "reading the limit of open files");
  const rlim_t wanted = std::max(limit.rlim_cur, std::min<rlim_t>(limit.rlim_max, kMostDescriptors));
  if (wanted > limit.rlim_cur) {
    const rlimit raised = {wanted, limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit.rlim_cur = wanted;
  }
  const auto now = static_cast<int64_t>(std::min<rlim_t>(limit.rlim_cur, INT32_MAX));
  if (now < least) {
    return absl::ResourceExhaustedError(absl::StrCat("this process may open ", now, " files; it needs at least ", least,
                                                     ": raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd)"));
  }
  return now;
}

}  // namespace athanor
