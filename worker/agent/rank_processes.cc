#include "worker/agent/rank_processes.h"

#include <fcntl.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/write_fence.h"
#include "common/service/logging_setup.h"
#include "worker/agent/exit_report.h"
#include "worker/agent/process_tree.h"

namespace athanor::agent {
namespace {

constexpr absl::Duration kLeftoversLimit = absl::Seconds(2);

absl::Status WriteSpec(const std::string& path, v1::JobSpec spec) {
  spec.clear_env();
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return FileError(errno, "writing", path);
  const bool written = spec.SerializeToFileDescriptor(fd);
  const int failed = written ? 0 : errno;
  close(fd);
  return written ? absl::OkStatus() : FileError(failed, "writing", path);
}

}  // namespace

RankProcesses::RankProcesses(const LogFiles* logs, Handlers handlers) : logs_(logs), handlers_(std::move(handlers)) {}

void RankProcesses::Start(const RankKey& key, StartOrder order) {
  auto task = [this, key, order = std::move(order)] {
    const absl::StatusOr<Process> process = Launch(key, order);
    if (process.ok()) alive_[static_cast<pid_t>(process->pid)] = key;
    handlers_.on_started(key, process);
  };
  if (!thread_.Post(std::move(task)))
    handlers_.on_started(key, absl::ResourceExhaustedError("too many ranks wait to be started"));
}

absl::StatusOr<Process> RankProcesses::Launch(const RankKey& key, const StartOrder& order) {
  const std::string directory = logs_->GenerationDir(key);
  RETURN_IF_ERROR(EnsureDir(directory));
  if (const absl::StatusOr<int64_t> newest = NewestClaim(order.job_dir); newest.ok() && *newest > key.generation) {
    if (handlers_.on_newer_generation) handlers_.on_newer_generation(key, *newest);
    return absl::FailedPreconditionError(absl::StrCat("generation ", *newest, " has written to ", order.job_dir,
                                                      ": the coordinator's records are older than it"));
  }
  RETURN_IF_ERROR(WriteSpec(logs_->SpecPath(key), order.spec));
  out_of_memory_kills_[key] = OutOfMemoryKills();
  return StartProcess({order.program, order.environment, logs_->LogPath(key), directory});
}

void RankProcesses::SeeOff(const RankKey& key, const Process& process) {
  // Never refused: there are no more ends than starts.
  thread_.Post([this, key, process] { handlers_.on_ended(key, Farewell(key, process)); });
}

std::optional<v1::FailureCause> RankProcesses::Farewell(const RankKey& key, const Process& process) {
  const absl::StatusOr<ExitStatus> status = Reap(process);
  alive_.erase(static_cast<pid_t>(process.pid));
  close(process.pidfd);
  if (const int killed = EndLeftovers(alive_, logs_->work_dir(), kLeftoversLimit); killed > 0) {
    Log(spdlog::level::info, "LeftoversKilled",
        {{"job", key.job},
         {"generation", absl::StrCat(key.generation)},
         {"rank", absl::StrCat(key.rank)},
         {"processes", absl::StrCat(killed)}});
  }
  std::optional<v1::FailureCause> cause;
  if (status.ok()) {
    cause = ExplainExit(*status, logs_->FailurePath(key), logs_->LogPath(key), out_of_memory_kills_[key]);
  } else {
    cause.emplace();
    cause->set_kind(v1::OUR_BUG);
    cause->set_retryable(true);
    cause->set_detail(std::string(status.status().message()));
  }
  out_of_memory_kills_.erase(key);
  unlink((logs_->FailurePath(key) + ".tmp").c_str());  // it may have been killed while it wrote its last words
  unlink(logs_->SpecPath(key).c_str());
  if (absl::Status cut = logs_->EnforceCap(logs_->LogPath(key)); !cut.ok())
    Log(spdlog::level::warn, "LogNotCut", {{"job", key.job}}, std::string(cut.message()));
  return cause;
}

void RankProcesses::EndOrphans() {
  thread_.Post([this] { EndLeftovers(alive_, logs_->work_dir(), kLeftoversLimit); });
}

}  // namespace athanor::agent
