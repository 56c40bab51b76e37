#include "worker/agent/process_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <memory>
#include <sstream>
#include <string_view>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "athanor/contract/rank_environment.h"

namespace athanor::agent {
namespace {

constexpr size_t kMostBytes = 1 << 20;  // of a /proc file; an environment is rarely above 10 kB

std::string ReadProcFile(pid_t pid, const char* name) {
  const int fd = open(absl::StrCat("/proc/", pid, "/", name).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  std::string text;
  char buffer[1 << 14];
  ssize_t got = 0;
  while (text.size() < kMostBytes && (got = read(fd, buffer, sizeof buffer)) > 0)
    text.append(buffer, static_cast<size_t>(got));
  close(fd);
  return text;
}

std::vector<pid_t> AllProcesses() {
  std::vector<pid_t> pids;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir("/proc"), closedir);
  if (dir == nullptr) return pids;
  while (const dirent* entry = readdir(dir.get())) {
    int pid = 0;
    if (absl::SimpleAtoi(entry->d_name, &pid)) pids.push_back(pid);
  }
  return pids;
}

// Kills the process if it `is_meant` and waits for its end: nothing of it writes when the next generation starts.
// The number may have gone to another process before the handle was opened; after that it cannot.
bool KillAndWait(pid_t pid, absl::Time end, const std::function<bool()>& is_meant) {
  const int handle = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (handle < 0) return false;
  bool gone = false;
  if (is_meant() && syscall(SYS_pidfd_send_signal, handle, SIGKILL, nullptr, 0) == 0) {
    pollfd wait = {handle, POLLIN, 0};
    const int64_t left = std::max<int64_t>(0, absl::ToInt64Milliseconds(end - absl::Now()));
    gone = poll(&wait, 1, static_cast<int>(left)) == 1;
  }
  close(handle);
  return gone;
}

// A rank that started before the process may be the one that it comes from.
bool MayBelongToOneOf(const std::map<pid_t, RankKey>& alive, const ProcessState& process) {
  return std::any_of(alive.begin(), alive.end(), [&](const auto& rank) {
    const std::optional<ProcessState> state = StateOf(rank.first);
    return state.has_value() && state->started <= process.started;
  });
}

bool IsOf(const std::map<pid_t, RankKey>& alive, const RankKey& owner) {
  return std::any_of(alive.begin(), alive.end(), [&](const auto& rank) { return rank.second == owner; });
}

}  // namespace

std::optional<ProcessState> ParseStat(const std::string& text) {
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(name_end + 1));
  ProcessState process;
  std::string skipped;
  fields >> process.state >> process.parent >> skipped >> process.session;
  for (int i = 7; i < 22; ++i) fields >> skipped;  // proc(5): the start is the 22nd field
  fields >> process.started;
  if (!fields) return std::nullopt;
  return process;
}

std::optional<ProcessState> StateOf(pid_t pid) {
  return ParseStat(ReadProcFile(pid, "stat"));
}

std::optional<RankKey> RankOfEnvironment(const std::string& block, const std::string& work_dir) {
  std::map<std::string_view, std::string_view> values;
  for (size_t begin = 0; begin < block.size();) {
    const size_t end = std::min(block.find('\0', begin), block.size());
    const std::string_view entry = std::string_view(block).substr(begin, end - begin);
    if (const size_t equals = entry.find('='); equals != std::string_view::npos)
      values.emplace(entry.substr(0, equals), entry.substr(equals + 1));
    begin = end + 1;
  }
  const std::string ours = work_dir + "/jobs/";
  if (values[kEnvSpecFile].substr(0, ours.size()) != ours) return std::nullopt;
  RankKey key{.job = std::string(values[kEnvJob])};
  if (key.job.empty() || !absl::SimpleAtoi(std::string(values[kEnvGeneration]), &key.generation) ||
      !absl::SimpleAtoi(std::string(values[kEnvRank]), &key.rank)) {
    return std::nullopt;
  }
  return key;
}

absl::Status BecomeReaper() {
  if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) return absl::ErrnoToStatus(errno, "becoming the reaper of orphans");
  return absl::OkStatus();
}

int EndLeftovers(const std::map<pid_t, RankKey>& alive, const std::string& work_dir, absl::Duration limit) {
  const absl::Time end = absl::Now() + limit;
  const pid_t self = getpid(), session = getsid(0);
  int killed = 0;
  for (bool found = true; found && absl::Now() < end;) {
    found = false;
    for (const pid_t pid : AllProcesses()) {
      if (alive.contains(pid)) continue;
      const std::optional<ProcessState> process = StateOf(pid);
      if (!process.has_value() || process->parent != self || process->session == session) continue;
      if (process->state != 'Z') {
        // A child that nobody has reaped keeps its number: what was read is what is killed.
        const std::optional<RankKey> owner = RankOfEnvironment(ReadProcFile(pid, "environ"), work_dir);
        if (owner.has_value() ? IsOf(alive, *owner) : MayBelongToOneOf(alive, *process)) continue;
        if (!KillAndWait(pid, end, [] { return true; })) continue;
        ++killed;
        found = true;  // what it had started is ours now
      }
      waitpid(pid, nullptr, WNOHANG);
    }
  }
  return killed;
}

int EndMarked(const std::string& work_dir, absl::Duration limit) {
  const absl::Time end = absl::Now() + limit;
  int killed = 0;
  for (bool found = true; found && absl::Now() < end;) {
    found = false;
    for (const pid_t pid : AllProcesses()) {
      if (pid == getpid()) continue;
      const bool gone =
          KillAndWait(pid, end, [&] { return RankOfEnvironment(ReadProcFile(pid, "environ"), work_dir).has_value(); });
      found = found || gone;
      killed += gone ? 1 : 0;
    }
  }
  return killed;
}

}  // namespace athanor::agent
