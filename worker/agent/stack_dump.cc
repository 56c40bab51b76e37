#include "worker/agent/stack_dump.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace athanor::agent {
namespace {

constexpr size_t kLimit = 60 * 1024;

std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string FromProc(int64_t pid) {
  std::string text;
  std::error_code error;
  for (const auto& thread : std::filesystem::directory_iterator(absl::StrCat("/proc/", pid, "/task"), error)) {
    const std::string status = ReadAll(thread.path() / "status");
    const size_t state = status.find("State:");
    absl::StrAppend(&text, "thread ", thread.path().filename().string(), " ", ReadAll(thread.path() / "comm"), "  ",
                    state == std::string::npos ? "" : status.substr(state, status.find('\n', state) - state),
                    "  waits in ", ReadAll(thread.path() / "wchan"), "\n", ReadAll(thread.path() / "stack"));
    if (text.size() > kLimit) break;
  }
  return text;
}

std::string FromTool(int64_t pid, absl::Duration limit) {
  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC) != 0) return {};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], 1);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  const std::string target = absl::StrCat(pid);
  char program[] = "eu-stack", option[] = "-p", frames[] = "-n", count[] = "24";
  char* argv[] = {program, option, const_cast<char*>(target.c_str()), frames, count, nullptr};
  pid_t tool = 0;
  const int error = posix_spawnp(&tool, program, &actions, nullptr, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(pipe_fds[1]);
  std::string text;
  const auto until = std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(limit);
  while (error == 0 && text.size() < kLimit) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
    pollfd wait = {pipe_fds[0], POLLIN, 0};
    if (left <= 0 || poll(&wait, 1, static_cast<int>(left)) <= 0) break;
    char buffer[4096];
    const ssize_t got = read(pipe_fds[0], buffer, sizeof buffer);
    if (got <= 0) break;
    text.append(buffer, static_cast<size_t>(got));
  }
  close(pipe_fds[0]);
  if (error == 0) {
    kill(tool, SIGKILL);
    waitpid(tool, nullptr, 0);
  }
  return text;
}

}  // namespace

std::string DumpStacks(int64_t pid, absl::Duration limit) {
  std::string text = FromTool(pid, limit);
  if (text.size() < 32) text = FromProc(pid);
  return text.substr(0, kLimit);
}

}  // namespace athanor::agent
