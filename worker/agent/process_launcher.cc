#include "worker/agent/process_launcher.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace athanor::agent {
namespace {

constexpr int kExitCannotExec = 127;
constexpr int kRaise = 5;
int rank_priority = 0;  // valid when `raised`
bool raised = false;

// Between clone and exec only raw calls: other threads may hold any lock.
[[noreturn]] void RunChild(const char* program, char* const* argv, char* const* environment, const char* directory,
                           int log, int null, pid_t parent) {
  setsid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kExitCannotExec);
  if (raised) setpriority(PRIO_PROCESS, 0, rank_priority);
  dup2(null, 0);
  dup2(log, 1);
  dup2(log, 2);
  syscall(SYS_close_range, 3, ~0U, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  if (chdir(directory) == 0) execve(program, argv, environment);
  static constexpr char kMessage[] = "athanor-agent: cannot start the trainer\n";
  if (write(2, kMessage, sizeof kMessage - 1) < 0) _exit(kExitCannotExec);
  _exit(kExitCannotExec);
}

}  // namespace

void RaisePriority() {
  rank_priority = getpriority(PRIO_PROCESS, 0);
  raised = setpriority(PRIO_PROCESS, 0, rank_priority - kRaise) == 0;
}

absl::StatusOr<Process> StartProcess(const ProcessRequest& request) {
  if (access(request.program.c_str(), X_OK) != 0) {
    return absl::NotFoundError(absl::StrCat("cannot run ", request.program, ": ", strerror(errno)));
  }
  const int log = open(request.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (log < 0)
    return absl::ResourceExhaustedError(absl::StrCat("cannot write ", request.log_path, ": ", strerror(errno)));
  const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  std::vector<char*> environment;
  environment.reserve(request.environment.size() + 1);
  for (const std::string& one : request.environment) environment.push_back(const_cast<char*>(one.c_str()));
  environment.push_back(nullptr);
  char* argv[] = {const_cast<char*>(request.program.c_str()), nullptr};
  const pid_t parent = getpid();
  int pidfd = -1;
  clone_args arguments = {};
  arguments.flags = CLONE_PIDFD;
  arguments.pidfd = reinterpret_cast<uint64_t>(&pidfd);
  arguments.exit_signal = SIGCHLD;
  const long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
  if (pid == 0) RunChild(argv[0], argv, environment.data(), request.working_directory.c_str(), log, null, parent);
  const int error = errno;
  close(log);
  if (null >= 0) close(null);
  if (pid < 0) return absl::ResourceExhaustedError(absl::StrCat("cannot start a process: ", strerror(error)));
  return Process{pid, pidfd};
}

void KillProcessGroup(const Process& process) {
  // Before its setsid the child has no group of its own: the pidfd reaches it all the same.
  syscall(SYS_pidfd_send_signal, process.pidfd, SIGKILL, nullptr, 0);
  kill(static_cast<pid_t>(-process.pid), SIGKILL);
}

absl::StatusOr<ExitStatus> Reap(const Process& process) {
  siginfo_t info = {};
  if (waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(process.pidfd), &info, WEXITED | WNOHANG) != 0 ||
      info.si_pid == 0) {
    return absl::InternalError(absl::StrCat("process ", process.pid, " cannot be reaped: ", strerror(errno)));
  }
  // Whatever it started goes with it.
  kill(static_cast<pid_t>(-process.pid), SIGKILL);
  ExitStatus status;
  if (info.si_code == CLD_EXITED) {
    status.code = info.si_status;
  } else {
    status.signal = info.si_status;
  }
  return status;
}

}  // namespace athanor::agent
