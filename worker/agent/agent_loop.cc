#include "worker/agent/agent_loop.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/descriptors.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/version.h"
#include "common/service/stop_limit.h"
#include "worker/agent/agent_clock.h"
#include "worker/agent/checkpoint_files.h"
#include "worker/agent/process_tree.h"
#include "worker/agent/rank_environment.h"
#include "worker/agent/stack_dump.h"

namespace athanor::agent {
namespace {

constexpr absl::Duration kConnectFirst = absl::Milliseconds(50), kConnectMost = absl::Milliseconds(500);
constexpr absl::Duration kReadPace = absl::Milliseconds(50), kReadHeld = absl::Seconds(10);
constexpr absl::Duration kOrphanPace = absl::Seconds(5), kOrphansLimit = absl::Seconds(5);
constexpr absl::Duration kHousePace = absl::Minutes(10);
// eu-stack reads the symbols of all of LibTorch: 0.2 s on an idle machine, 0.8 s on a busy one, more with CUDA.
constexpr absl::Duration kStackLeast = absl::Milliseconds(800), kStacksLimit = absl::Seconds(8);
constexpr absl::Duration kFinalReportTimeout = absl::Seconds(2), kSelfCallLimit = absl::Seconds(2);
constexpr absl::Duration kStopMargin = absl::Seconds(10);
constexpr size_t kReadsWaiting = 1024, kReadsAtOnce = 64;
// A rank takes a pidfd, its connections and, while it starts, some files; the rest of the agent some more.
constexpr int64_t kLeastDescriptors = 96, kDescriptorsKept = 48, kDescriptorsPerSlot = 4;
AgentIdentity IdentityOf(const AgentConfig& config) {
  std::random_device device;
  return {config.name,  absl::StrFormat("%08x%08x-%d", device(), device(), getpid()),
          config.host,  config.device,
          Version(),    config.slots,
          config.labels};
}

// Tells this work folder from every other: of two processes that name the same one, only one can hold its lock.
std::string HomeOf(int lock) {
  struct stat info = {};
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  if (boot.empty() || fstat(lock, &info) != 0) return "";
  return absl::StrCat(boot, "/", info.st_dev, "/", info.st_ino);
}

}  // namespace

absl::Time AgentLoop::Now() {
  return AgentClock();
}

AgentLoop::AgentLoop(AgentConfig config, AgentMetrics* metrics)
    : config_(std::move(config)), metrics_(metrics), core_(IdentityOf(config_)), logs_(config_.work_dir) {
  metrics_->slots.Set(config_.slots);
}

AgentLoop::~AgentLoop() {
  if (beats_ != nullptr) beats_->Stop();
  session_.reset();  // its callbacks use the beats
  for (const int fd : {epoll_, event_, signal_, lock_}) {
    if (fd >= 0) close(fd);
  }
}

absl::Status AgentLoop::Ready() const {
  return ready_ ? absl::OkStatus() : absl::UnavailableError(absl::StrCat("not connected to ", config_.coordinator));
}

absl::Status AgentLoop::Healthy() const {
  return open_ ? rank_server_->CallSelf(kSelfCallLimit) : absl::UnavailableError("starting");
}

absl::Status AgentLoop::TakeWorkDir() {
  RETURN_IF_ERROR(EnsureDir(config_.work_dir + "/jobs"));
  if (chmod(config_.work_dir.c_str(), 0700) != 0) return FileError(errno, "closing to others", config_.work_dir);
  const std::string path = config_.work_dir + "/LOCK";
  lock_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_ < 0) return FileError(errno, "opening", path);
  if (flock(lock_, LOCK_EX | LOCK_NB) != 0)
    return absl::FailedPreconditionError(absl::StrCat(config_.work_dir, " is in use by another agent"));
  return absl::OkStatus();
}

absl::Status AgentLoop::OpenRankServer() {
  RankServer::Handlers ranks;
  ranks.on_call = [this](uint64_t token, const v1::RankCall& call) {
    Post([this, token, call] { Perform(core_.OnRankCall(token, call, Now())); });
  };
  ranks.on_call_gone = [this](uint64_t token) { Post([this, token] { core_.OnRankCallGone(token); }); };
  ranks.on_report = [this](const v1::TrainerReport& report) {
    Post([this, report] { core_.OnRankReport(KeyOf(report.id()), report.progress(), Now()); });
  };
  const ListenerOptions options{descriptors_, kDescriptorsKept + kDescriptorsPerSlot * config_.slots};
  ASSIGN_OR_RETURN(rank_server_, RankServer::Open(config_.work_dir, options, std::move(ranks)));
  open_ = true;
  return absl::OkStatus();
}

absl::Status AgentLoop::OpenSession() {
  CoordinatorSession::Handlers session;
  session.on_message = [this](uint64_t number, const v1::CoordinatorMessage& message) {
    if (message.has_heartbeat_ack() && beats_->Acked(message.heartbeat_ack().number())) return;
    Post([this, number, message] {
      if (number == session_number_) Perform(core_.OnMessage(message, Now()));
    });
  };
  session.on_closed = [this](uint64_t number, const absl::Status& status) {
    Post([this, number, status] { SessionClosed(number, status); });
  };
  ASSIGN_OR_RETURN(session_, CoordinatorSession::Create(config_.coordinator, config_.channel, std::move(session)));
  beats_ = std::make_unique<LeaseBeats>(
      [this](uint64_t number, v1::AgentMessage message) { session_->Send(number, std::move(message)); });
  return absl::OkStatus();
}

absl::Status AgentLoop::Prepare() {
  ASSIGN_OR_RETURN(descriptors_, RaiseDescriptorLimit(kLeastDescriptors + kDescriptorsPerSlot * config_.slots));
  RETURN_IF_ERROR(TakeWorkDir());
  RETURN_IF_ERROR(BecomeReaper());
  if (const int killed = EndMarked(config_.work_dir, kOrphansLimit); killed > 0)
    Log(spdlog::level::warn, "LeftoversKilled", {{"processes", absl::StrCat(killed)}}, "of an agent that was killed");
  core_.SetHome(HomeOf(lock_));
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
  RankProcesses::Handlers ranks;
  ranks.on_started = [this](const RankKey& key, const absl::StatusOr<Process>& process) {
    Post([this, key, process] { OnStarted(key, process); });
  };
  ranks.on_ended = [this](const RankKey& key, std::optional<v1::FailureCause> cause) {
    Post([this, key, cause = std::move(cause)] { OnEnded(key, cause); });
  };
  ranks.on_newer_generation = [this](const RankKey& key, int64_t newest) {
    Post([this, key, newest] { core_.SawGeneration(key.job, static_cast<int32_t>(newest)); });
  };
  processes_ = std::make_unique<RankProcesses>(&logs_, std::move(ranks));
  RETURN_IF_ERROR(OpenRankServer());
  return OpenSession();
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
      OnProcessReady(fd);
    }
    DrainTasks();
    KeepLease();
    const absl::Time now = Now();
    if (now >= connect_at_) Connect();
    if (now >= core_.NextDeadline()) Perform(core_.OnTick(now));
    ServeReads();
    KeepHouse();
    KeepLease();
    metrics_->connected.Set(ready_ ? 1 : 0);
    metrics_->ranks.Set(static_cast<double>(running_.size()));
    metrics_->outbox.Set(static_cast<double>(core_.outbox_size()));
    metrics_->lease_expiries.Increment(static_cast<double>(core_.lease_expiries()) - metrics_->lease_expiries.Value());
  }
  rank_server_->Close();
  beats_->Stop();
  session_->Close();
  return absl::OkStatus();
}

void AgentLoop::KeepLease() {
  const absl::Time now = Now();
  if (core_.registered() != ready_) {
    if (core_.registered()) {
      contact_.Connected();
      beats_->Registered(session_number_, core_.heartbeat_interval(), now);
    } else {
      beats_->Closed();
    }
  }
  ready_ = core_.registered();
  if (const std::optional<absl::Time> sent = beats_->Turn(now, core_.last_heartbeat())) core_.OnLeaseExtended(*sent);
  rank_server_->SetContact(!ready_, core_.lease_until());
}

// Ranks are gone and their ends are told, or there is nobody to tell.
bool AgentLoop::MayLeave() const {
  if (!core_.leaving() || core_.rank_count() > 0) return false;
  return core_.OutboxDrained() || Now() >= leave_by_;
}

int AgentLoop::WaitMilliseconds() const {
  absl::Time until = std::min({core_.NextDeadline(), connect_at_, house_at_});
  const absl::Time now = Now();
  if (!reads_.empty() && !reading_) until = std::min(until, reads_at_);
  if (!running_.empty()) until = std::min(until, orphans_at_);
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
  leave_by_ = Now() + config_.stop_grace + kFinalReportTimeout;
  LimitStop("athanor-agent", config_.stop_grace + kFinalReportTimeout + kStopMargin);
  Perform(core_.OnShutdown(config_.stop_grace, Now()));
}

void AgentLoop::OnProcessReady(int pidfd) {
  for (auto& [key, running] : running_) {
    if (running.process.pidfd != pidfd || running.ended) continue;
    running.ended = true;
    epoll_ctl(epoll_, EPOLL_CTL_DEL, pidfd, nullptr);
    return processes_->SeeOff(key, running.process);
  }
}

void AgentLoop::OnEnded(const RankKey& key, std::optional<v1::FailureCause> cause) {
  running_.erase(key);
  Log(spdlog::level::info, "RankEnded",
      {{"job", key.job}, {"generation", absl::StrCat(key.generation)}, {"rank", absl::StrCat(key.rank)}},
      cause.has_value() ? cause->detail() : "exit code 0");
  metrics_->exits
      .Add({{"cause", cause.has_value() ? absl::AsciiStrToLower(v1::CauseKind_Name(cause->kind())) : "none"}})
      .Increment();
  rank_server_->Forget(key);
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
  const RankPlace place{rank_server_->socket_path(), config_.host, logs_.SpecPath(key), logs_.FailurePath(key),
                        config_.rank_log_format};
  processes_->Start(key, {effect.launch.spec(), config_.trainer, RankEnvironment(effect.launch, place, PassedOn()),
                          effect.launch.job_dir()});
}

void AgentLoop::OnStarted(const RankKey& key, const absl::StatusOr<Process>& process) {
  if (!process.ok()) {
    v1::FailureCause cause;
    // An old number costs the job nothing: it gets the next one.
    cause.set_kind(absl::IsFailedPrecondition(process.status()) ? v1::PREEMPTED : v1::LAUNCH_FAILED);
    cause.set_retryable(true);
    cause.set_detail(std::string(process.status().message()));
    return Perform(core_.OnProcessExited(key, std::move(cause), Now()));
  }
  running_[key] = {*process};
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

void AgentLoop::EndRank(const RankKey& key) {
  auto it = running_.find(key);
  if (it != running_.end() && !it->second.ended) KillProcessGroup(it->second.process);
}

// Ranks whose stacks are wanted share kStacksLimit: of a crowd those are read that are read in time. All are killed.
void AgentLoop::Do(KillProcess& effect) {
  auto it = running_.find(effect.key);
  if (it == running_.end() || it->second.stack_wanted) return;  // ends when its stack is read
  if (!effect.dump_stacks) return EndRank(effect.key);
  it->second.stack_wanted = true;
  ++stacks_wanted_;
  auto task = [this, key = effect.key, pid = it->second.process.pid, until = Now() + kStacksLimit] {
    const absl::Duration left = until - Now();
    std::string text =
        left > absl::ZeroDuration() ? DumpStacks(pid, std::max(kStackLeast, left / stacks_wanted_.load())) : "";
    --stacks_wanted_;
    Post([this, key, text = std::move(text)] {
      if (!text.empty()) Perform(core_.OnStacks(key, text));
      EndRank(key);
    });
  };
  if (stack_reader_.Post(std::move(task))) return;
  --stacks_wanted_;
  EndRank(effect.key);
}

void AgentLoop::Do(DirectRank& effect) {
  rank_server_->Direct(effect.key, effect.directive);
}

void AgentLoop::Do(AnswerRank& effect) {
  rank_server_->Answer(effect.token, effect.reply);
}

void AgentLoop::Do(ReadLogFile& effect) {
  if (reads_.size() >= kReadsWaiting) {
    v1::AgentMessage message;
    message.mutable_log_data()->set_stream(effect.request.stream());
    message.mutable_log_data()->set_error("too many log readers");
    return session_->Send(session_number_, std::move(message));
  }
  reads_.push_back({effect.request, effect.request.follow() ? Now() + kReadHeld : absl::InfinitePast()});
  reads_at_ = Now();
}

void AgentLoop::ServeReads() {
  const absl::Time now = Now();
  if (reads_.empty() || reading_ || now < reads_at_) return;
  std::vector<std::pair<v1::ReadLog, bool>> batch;
  for (const WaitingRead& read : reads_) {
    if (batch.size() >= kReadsAtOnce) break;
    batch.emplace_back(read.request, !core_.Runs(KeyOf(read.request.id())));
  }
  reading_ = log_reader_.Post([this, batch = std::move(batch)] {
    std::vector<v1::LogData> answers;
    answers.reserve(batch.size());
    for (const auto& [request, ended] : batch) answers.push_back(logs_.Read(request, ended));
    Post([this, answers = std::move(answers)]() mutable { TakeReads(std::move(answers)); });
  });
}

// Answers what has come; who follows a log without news waits for its next turn.
void AgentLoop::TakeReads(std::vector<v1::LogData> answers) {
  reading_ = false;
  const absl::Time now = Now();
  bool news = reads_.size() > answers.size();
  for (v1::LogData& data : answers) {
    const auto it = std::find_if(reads_.begin(), reads_.end(),
                                 [&](const WaitingRead& read) { return read.request.stream() == data.stream(); });
    if (it == reads_.end()) continue;  // its session is over
    if (data.data().empty() && !data.end() && data.error().empty() && now < it->until) {
      reads_.splice(reads_.end(), reads_, it);
      continue;
    }
    v1::AgentMessage message;
    *message.mutable_log_data() = std::move(data);
    session_->Send(session_number_, std::move(message));
    reads_.erase(it);
    news = true;
  }
  reads_at_ = news ? now : now + kReadPace;
}

void AgentLoop::KeepHouse() {
  const absl::Time now = Now();
  if (now >= orphans_at_ && !running_.empty()) {
    orphans_at_ = now + kOrphanPace;
    processes_->EndOrphans();
    std::vector<std::string> paths;
    for (const auto& [key, running] : running_) paths.push_back(logs_.LogPath(key));
    files_.Post([this, paths = std::move(paths)] {
      for (const std::string& path : paths) logs_.EnforceCap(path).IgnoreError();  // told at the rank's end
    });
  }
  if (now < house_at_) return;
  house_at_ = now + kHousePace;
  std::set<std::string> live;
  for (const RankKey& key : core_.ranks()) live.insert(key.job);
  files_.Post([this, live = std::move(live)] {
    const SweepResult swept = RemoveOldJobFolders(logs_, live, config_.log_retention);
    for (const std::string& job : swept.removed) Log(spdlog::level::info, "LogsRemoved", {{"job", job}});
    for (const std::string& error : swept.errors) Log(spdlog::level::warn, "LogsNotRemoved", {}, error);
  });
}

void AgentLoop::Do(RemoveCheckpoint& effect) {
  auto task = [this, request = effect.request] {
    v1::FilesDeleted deleted;
    deleted.set_job(request.job());
    deleted.set_step(request.step());
    const absl::Status status = RemoveCheckpointFiles(request.job(), request.path(), request.storage());
    if (!status.ok()) deleted.set_error(std::string(status.message()));
    Post([this, deleted] { Perform(core_.OnFilesDeleted(deleted)); });
  };
  files_.Post(std::move(task));  // refused: the coordinator asks again
}

void AgentLoop::Do(CloseSession& effect) {
  contact_.Refused(effect.reason, Now());
  closed_here_ = true;
  session_->Close();
}

void AgentLoop::Connect() {
  connect_at_ = absl::InfiniteFuture();
  session_number_ = session_->Open();
  closed_here_ = false;
  Perform(core_.OnSessionOpened(Now()));
}

void AgentLoop::SessionClosed(uint64_t session, const absl::Status& status) {
  if (session != session_number_) return;
  const bool was_registered = core_.registered();
  Perform(core_.OnSessionClosed(Now()));
  reads_.clear();
  metrics_->reconnects.Increment();
  if (was_registered) {
    contact_.Ended(status);
  } else if (!closed_here_) {
    contact_.NotConnected(status, Now());
  }
  connect_delay_ = was_registered ? kConnectFirst : std::clamp(connect_delay_ * 2, kConnectFirst, kConnectMost);
  std::uniform_real_distribution<double> jitter(0.5, 1.0);
  connect_at_ = Now() + connect_delay_ * jitter(random_);
}

}  // namespace athanor::agent
