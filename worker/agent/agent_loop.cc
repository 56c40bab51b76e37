#include "worker/agent/agent_loop.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/version.h"
#include "common/service/exit_codes.h"
#include "worker/agent/checkpoint_files.h"
#include "worker/agent/exit_report.h"
#include "worker/agent/stack_dump.h"

namespace athanor::agent {
namespace {

constexpr absl::Duration kConnectFirst = absl::Milliseconds(50), kConnectMost = absl::Seconds(1);
constexpr absl::Duration kReadPace = absl::Milliseconds(50), kReadHeld = absl::Seconds(10), kCapPace = absl::Seconds(5);
constexpr absl::Duration kStackLimit = absl::Milliseconds(800), kLastWords = absl::Seconds(2);
constexpr size_t kReadsWaiting = 1024;
// What a rank may see of the agent's own environment.
constexpr const char* kPassedOn[] = {"PATH",
                                     "HOME",
                                     "LANG",
                                     "LC_ALL",
                                     "LD_LIBRARY_PATH",
                                     "TMPDIR",
                                     "TZ",
                                     "USER",
                                     "NCCL_DEBUG",
                                     "NCCL_SOCKET_IFNAME",
                                     "GLOO_SOCKET_IFNAME"};

AgentIdentity IdentityOf(const AgentConfig& config) {
  std::random_device device;
  return {config.name,  absl::StrFormat("%08x%08x-%d", device(), device(), getpid()),
          config.host,  config.device,
          Version(),    config.slots,
          config.labels};
}

absl::Status WriteSpec(const std::string& path, v1::JobSpec spec) {
  spec.clear_env();
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return absl::ResourceExhaustedError(absl::StrCat("cannot write ", path, ": ", strerror(errno)));
  const bool written = spec.SerializeToFileDescriptor(fd);
  close(fd);
  return written ? absl::OkStatus() : absl::ResourceExhaustedError(absl::StrCat("cannot write ", path));
}

}  // namespace

absl::Time AgentLoop::Now() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

AgentLoop::AgentLoop(AgentConfig config, AgentMetrics* metrics)
    : config_(std::move(config)), metrics_(metrics), core_(IdentityOf(config_)), logs_(config_.work_dir) {
  metrics_->slots.Set(config_.slots);
}

AgentLoop::~AgentLoop() {
  for (const int fd : {epoll_, event_, signal_, lock_}) {
    if (fd >= 0) close(fd);
  }
}

absl::Status AgentLoop::Ready() const {
  return ready_ ? absl::OkStatus() : absl::UnavailableError(absl::StrCat("not connected to ", config_.coordinator));
}

absl::Status AgentLoop::Prepare() {
  std::error_code error;
  std::filesystem::create_directories(config_.work_dir + "/jobs", error);
  if (error)
    return absl::FailedPreconditionError(absl::StrCat("cannot create ", config_.work_dir, ": ", error.message()));
  std::filesystem::permissions(config_.work_dir, std::filesystem::perms::owner_all, error);
  lock_ = open((config_.work_dir + "/LOCK").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_ < 0 || flock(lock_, LOCK_EX | LOCK_NB) != 0)
    return absl::FailedPreconditionError(absl::StrCat(config_.work_dir, " is in use by another agent"));
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  event_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  signal_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  for (const int fd : {event_, signal_}) {
    epoll_event interest = {};
    interest.events = EPOLLIN;
    interest.data.fd = fd;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &interest) != 0)
      return absl::InternalError(absl::StrCat("epoll: ", strerror(errno)));
  }
  TrainerDoor::Handlers door;
  door.on_call = [this](uint64_t token, const v1::RankCall& call) {
    Post([this, token, call] { Perform(core_.OnRankCall(token, call, Now())); });
  };
  door.on_call_gone = [this](uint64_t token) { Post([this, token] { core_.OnRankCallGone(token); }); };
  door.on_report = [this](const v1::TrainerReport& report) {
    Post([this, report] { core_.OnRankReport(KeyOf(report.id()), report.progress(), Now()); });
  };
  ASSIGN_OR_RETURN(door_, TrainerDoor::Open(config_.work_dir, std::move(door)));
  CoordinatorSession::Handlers session;
  session.on_message = [this](uint64_t number, const v1::CoordinatorMessage& message) {
    Post([this, number, message] {
      if (number == session_number_) Perform(core_.OnMessage(message, Now()));
    });
  };
  session.on_closed = [this](uint64_t number, const absl::Status& status) {
    Post([this, number, status] { SessionClosed(number, status); });
  };
  ASSIGN_OR_RETURN(session_, CoordinatorSession::Create(config_.coordinator, config_.channel, std::move(session)));
  return absl::OkStatus();
}

absl::Status AgentLoop::Run() {
  RETURN_IF_ERROR(Prepare());
  Connect();
  while (!MayLeave()) {
    epoll_event events[64];
    const int count = epoll_wait(epoll_, events, 64, WaitMilliseconds());
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == event_) continue;  // drained below
      if (fd == signal_) {
        OnSignal();
        continue;
      }
      for (const auto& [key, running] : running_) {
        if (running.process.pidfd != fd) continue;
        OnProcessEnd(RankKey(key));
        break;
      }
    }
    DrainTasks();
    const absl::Time now = Now();
    if (now >= connect_at_) Connect();
    if (now >= core_.NextDeadline()) Perform(core_.OnTick(now));
    ServeReads();
    if (now >= caps_at_) {
      for (const auto& [key, running] : running_) logs_.EnforceCap(key);
      caps_at_ = now + kCapPace;
    }
    ready_ = core_.registered();
    metrics_->connected.Set(ready_ ? 1 : 0);
    metrics_->ranks.Set(static_cast<double>(running_.size()));
    metrics_->outbox.Set(static_cast<double>(core_.outbox_size()));
    metrics_->lease_expiries.Increment(static_cast<double>(core_.lease_expiries()) - metrics_->lease_expiries.Value());
  }
  door_->Close();
  session_->Close();
  return absl::OkStatus();
}

// Ranks are gone and their ends are told, or there is nobody to tell.
bool AgentLoop::MayLeave() const {
  if (!core_.leaving() || !running_.empty()) return false;
  return core_.outbox_size() == 0 || !core_.registered() || Now() >= leave_by_;
}

int AgentLoop::WaitMilliseconds() const {
  absl::Time until = std::min(core_.NextDeadline(), connect_at_);
  const absl::Time now = Now();
  if (!reads_.empty()) until = std::min(until, now + kReadPace);
  if (!running_.empty()) until = std::min(until, now + kCapPace);
  if (core_.leaving()) until = std::min(until, now + absl::Milliseconds(50));
  const int64_t wait = absl::ToInt64Milliseconds(until - now + absl::Microseconds(999));
  return static_cast<int>(std::clamp<int64_t>(wait, 0, 60000));
}

void AgentLoop::Post(Task task) {
  {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  const uint64_t one = 1;
  if (write(event_, &one, sizeof one) < 0) return;  // full: the loop is awake anyway
}

void AgentLoop::DrainTasks() {
  uint64_t count = 0;
  if (read(event_, &count, sizeof count) < 0) return;
  std::vector<Task> tasks;
  {
    std::lock_guard lock(mutex_);
    tasks.swap(tasks_);
  }
  for (Task& task : tasks) task();
}

void AgentLoop::OnSignal() {
  signalfd_siginfo info;
  if (read(signal_, &info, sizeof info) != sizeof info) return;
  Log(spdlog::level::info, "Stopping",
      {{"signal", absl::StrCat(info.ssi_signo)}, {"ranks", absl::StrCat(running_.size())}});
  leave_by_ = Now() + config_.stop_grace + kLastWords;
  Perform(core_.OnShutdown(config_.stop_grace, Now()));
}

void AgentLoop::OnProcessEnd(const RankKey& key) {
  auto it = running_.find(key);
  if (it == running_.end()) return;
  const absl::StatusOr<ExitStatus> status = Reap(it->second.process);
  if (!status.ok()) return;
  std::optional<v1::FailureCause> cause =
      ExplainExit(*status, logs_.FailurePath(key), logs_.LogPath(key), it->second.out_of_memory_kills);
  unlink(
      absl::StrCat(logs_.FailurePath(key), ".tmp").c_str());  // it may have been killed while it wrote its last words
  epoll_ctl(epoll_, EPOLL_CTL_DEL, it->second.process.pidfd, nullptr);
  close(it->second.process.pidfd);
  running_.erase(it);
  // What the rank said last may still be in the queue.
  DrainTasks();
  Log(spdlog::level::info, "RankEnded",
      {{"job", key.job}, {"generation", absl::StrCat(key.generation)}, {"rank", absl::StrCat(key.rank)}},
      cause.has_value() ? cause->detail() : "exit code 0");
  metrics_->exits
      .Add({{"cause", cause.has_value() ? absl::AsciiStrToLower(v1::CauseKind_Name(cause->kind())) : "none"}})
      .Increment();
  door_->Forget(key);
  std::error_code error;
  std::filesystem::remove(logs_.SpecPath(key), error);
  Perform(core_.OnProcessExited(key, std::move(cause), Now()));
}

void AgentLoop::Perform(std::vector<Effect> effects) {
  for (Effect& effect : effects) std::visit([this](auto& one) { Do(one); }, effect);
}

void AgentLoop::Do(SendMessage& effect) {
  session_->Send(session_number_, std::move(effect.message));
}

void AgentLoop::Do(LaunchProcess& effect) {
  const RankKey key = KeyOf(effect.launch.id());
  const int64_t kills = OutOfMemoryKills();
  const absl::StatusOr<Process> process = Launch(effect.launch);
  if (!process.ok()) {
    v1::FailureCause cause;
    cause.set_kind(v1::LAUNCH_FAILED);
    cause.set_retryable(true);
    cause.set_detail(std::string(process.status().message()));
    return Perform(core_.OnProcessExited(key, std::move(cause), Now()));
  }
  running_[key] = {*process, kills};
  epoll_event interest = {};
  interest.events = EPOLLIN;
  interest.data.fd = process->pidfd;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, process->pidfd, &interest);
  metrics_->launches.Increment();
  Log(spdlog::level::info, "RankStarted",
      {{"job", key.job},
       {"generation", absl::StrCat(key.generation)},
       {"rank", absl::StrCat(key.rank)},
       {"pid", absl::StrCat(process->pid)}});
  Perform(core_.OnProcessStarted(key, process->pid, Now()));
}

absl::StatusOr<Process> AgentLoop::Launch(const v1::LaunchRank& launch) {
  const RankKey key = KeyOf(launch.id());
  const std::string directory = logs_.GenerationDir(key);
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return absl::ResourceExhaustedError(absl::StrCat("cannot create ", directory, ": ", error.message()));
  RETURN_IF_ERROR(WriteSpec(logs_.SpecPath(key), launch.spec()));
  return StartProcess({config_.trainer, Environment(launch), logs_.LogPath(key), directory});
}

std::vector<std::string> AgentLoop::Environment(const v1::LaunchRank& launch) const {
  const RankKey key = KeyOf(launch.id());
  const std::string threads = absl::StrCat(std::max(1, launch.spec().resources().threads_per_rank()));
  const std::string slots = absl::StrJoin(launch.slots(), ",");
  std::map<std::string, std::string> values = {{"OMP_NUM_THREADS", threads}, {"MKL_NUM_THREADS", threads}};
  for (const char* name : kPassedOn) {
    if (const char* value = std::getenv(name)) values[name] = value;
  }
  for (const auto& [name, value] : launch.spec().env()) values[name] = value;
  const bool cuda = launch.spec().resources().device() == "cuda";
  if (cuda) values["CUDA_VISIBLE_DEVICES"] = slots;
  values[kEnvSocket] = door_->socket_path();
  values[kEnvJob] = key.job;
  values[kEnvGeneration] = absl::StrCat(key.generation);
  values[kEnvRank] = absl::StrCat(key.rank);
  values[kEnvWorldSize] = absl::StrCat(launch.world_size());
  values[kEnvLocalRank] = absl::StrCat(launch.local_rank());
  values[kEnvSpecFile] = logs_.SpecPath(key);
  values[kEnvJobDir] = launch.job_dir();
  values[kEnvHost] = config_.host;
  values[kEnvSlots] = slots;
  values[kEnvDevice] = cuda ? "cuda" : "cpu";
  values[kEnvFailureFile] = logs_.FailurePath(key);
  values[kEnvRestarts] = absl::StrCat(launch.restarts());
  std::vector<std::string> environment;
  environment.reserve(values.size());
  for (const auto& [name, value] : values) environment.push_back(absl::StrCat(name, "=", value));
  return environment;
}

void AgentLoop::Do(KillProcess& effect) {
  auto it = running_.find(effect.key);
  if (it == running_.end()) return;
  if (effect.dump_stacks) Perform(core_.OnStacks(effect.key, DumpStacks(it->second.process.pid, kStackLimit)));
  KillProcessGroup(it->second.process);
}

void AgentLoop::Do(DirectRank& effect) {
  door_->Direct(effect.key, effect.directive);
}

void AgentLoop::Do(AnswerRank& effect) {
  door_->Answer(effect.token, effect.reply);
}

void AgentLoop::Do(ReadLogFile& effect) {
  if (reads_.size() >= kReadsWaiting) {
    v1::AgentMessage message;
    message.mutable_log_data()->set_stream(effect.request.stream());
    message.mutable_log_data()->set_error("too many log readers");
    return session_->Send(session_number_, std::move(message));
  }
  reads_.push_back({effect.request, effect.request.follow() ? Now() + kReadHeld : absl::InfinitePast()});
}

void AgentLoop::ServeReads() {
  const absl::Time now = Now();
  for (auto it = reads_.begin(); it != reads_.end();) {
    v1::LogData data = logs_.Read(it->request, !core_.Runs(KeyOf(it->request.id())));
    if (data.data().empty() && !data.end() && data.error().empty() && now < it->until) {
      ++it;
      continue;
    }
    v1::AgentMessage message;
    *message.mutable_log_data() = std::move(data);
    session_->Send(session_number_, std::move(message));
    it = reads_.erase(it);
  }
}

void AgentLoop::Do(RemoveCheckpoint& effect) {
  v1::FilesDeleted deleted;
  deleted.set_job(effect.request.job());
  deleted.set_step(effect.request.step());
  if (absl::Status status = RemoveCheckpointFiles(effect.request.job(), effect.request.path()); !status.ok())
    deleted.set_error(std::string(status.message()));
  Perform(core_.OnFilesDeleted(deleted));
}

void AgentLoop::Do(CloseSession& effect) {
  Log(spdlog::level::err, "Refused", {{"coordinator", config_.coordinator}}, effect.reason);
  session_->Close();
}

void AgentLoop::Connect() {
  connect_at_ = absl::InfiniteFuture();
  session_number_ = session_->Open();
  session_open_ = true;
  Perform(core_.OnSessionOpened(Now()));
}

void AgentLoop::SessionClosed(uint64_t session, const absl::Status& status) {
  if (session != session_number_) return;
  const bool was_registered = core_.registered();
  Perform(core_.OnSessionClosed(Now()));
  reads_.clear();
  session_open_ = false;
  metrics_->reconnects.Increment();
  if (was_registered)
    Log(spdlog::level::warn, "SessionEnded", {{"coordinator", config_.coordinator}}, std::string(status.message()));
  connect_delay_ = was_registered ? kConnectFirst : std::clamp(connect_delay_ * 2, kConnectFirst, kConnectMost);
  std::uniform_real_distribution<double> jitter(0.5, 1.0);
  connect_at_ = Now() + connect_delay_ * jitter(random_);
}

}  // namespace athanor::agent
