#include "athanor/base/run_program.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace athanor {
namespace {

std::vector<char*> Pointers(std::vector<std::string>* texts) {
  std::vector<char*> pointers;
  for (std::string& text : *texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

absl::StatusOr<pid_t> Spawn(std::vector<std::string> command, std::vector<std::string> environment, int output,
                            bool errors_too) {
  for (char** one = environ; *one != nullptr; ++one) environment.emplace_back(*one);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output, 1);
  if (errors_too) posix_spawn_file_actions_adddup2(&actions, output, 2);
  if (!errors_too) posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int error = posix_spawnp(&child, command[0].c_str(), &actions, nullptr, Pointers(&command).data(),
                                 Pointers(&environment).data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return absl::ErrnoToStatus(error, absl::StrCat("starting ", command[0]));
  return child;
}

void ReadUntil(int input, absl::Time end, const RunProgramOptions& options, ProgramOutput* out) {
  char buffer[1 << 14];
  while (out->text.size() < options.max_bytes) {
    const int64_t left = absl::ToInt64Milliseconds(end - absl::Now());
    pollfd wait = {input, POLLIN, 0};
    const int ready = left <= 0 ? 0 : poll(&wait, 1, static_cast<int>(left));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return;
    const ssize_t got = read(input, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      out->complete = got == 0;
      return;
    }
    out->text.append(buffer, static_cast<size_t>(got));
  }
}

// The exit status; whoever has not left at `end` is killed.
int StatusOf(pid_t child, absl::Time end) {
  const int handle = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
  pollfd wait = {handle, POLLIN, 0};
  const absl::Duration left = std::max(end - absl::Now(), absl::ZeroDuration());
  if (handle < 0 || poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(left))) <= 0) kill(child, SIGKILL);
  if (handle >= 0) close(handle);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

}  // namespace

absl::StatusOr<ProgramOutput> RunProgram(const std::vector<std::string>& command, const RunProgramOptions& options) {
  if (command.empty()) return absl::InvalidArgumentError("no program to run");
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "making a pipe");
  const absl::StatusOr<pid_t> child = Spawn(command, options.environment, ends[1], options.errors_too);
  close(ends[1]);
  ProgramOutput out;
  const absl::Time end = absl::Now() + options.limit;
  if (child.ok()) ReadUntil(ends[0], end, options, &out);
  close(ends[0]);
  if (!child.ok()) return child.status();
  const int status = StatusOf(*child, out.complete ? end : absl::InfinitePast());
  if (WIFEXITED(status)) out.exit_code = WEXITSTATUS(status);
  return out;
}

}  // namespace athanor
