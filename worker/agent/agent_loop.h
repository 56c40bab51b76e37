// The agent's loop: owns AgentCore and the ranks' pidfds; gRPC threads and its own helpers post to it. It never waits
// for a disk or a process: starting ranks and seeing them off, reading logs, reading stacks and removing files have
// threads of their own.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/agent/agent_config.h"
#include "worker/agent/agent_core.h"
#include "worker/agent/agent_metrics.h"
#include "worker/agent/contact_log.h"
#include "worker/agent/coordinator_session.h"
#include "worker/agent/job_folders.h"
#include "worker/agent/lease_beats.h"
#include "worker/agent/log_files.h"
#include "worker/agent/rank_processes.h"
#include "worker/agent/rank_server.h"
#include "worker/agent/task_thread.h"

namespace athanor::agent {

class AgentLoop {
 public:
  AgentLoop(AgentConfig config, AgentMetrics* metrics);
  ~AgentLoop();
  // Runs until a signal asked for the end and every rank is gone. Call on the main thread, signals blocked in all
  // threads.
  absl::Status Run();
  // OK when connected. Thread-safe.
  absl::Status Ready() const;
  // Whether ranks' calls are answered, found out by making one. Thread-safe; blocks for at most two seconds.
  absl::Status Healthy() const;

 private:
  struct Running {
    Process process;
    bool ended = false;         // being seen off
    bool stack_wanted = false;  // ends when it is read
  };
  struct WaitingRead {
    v1::ReadLog request;
    absl::Time until;
  };
  using Task = std::function<void()>;

  absl::Status Prepare();
  absl::Status TakeWorkDir();
  absl::Status OpenRankServer();
  absl::Status OpenSession();
  void Post(Task task);  // thread-safe
  void DrainTasks();
  void OnSignal();
  void OnProcessReady(int pidfd);
  void OnStarted(const RankKey& key, const absl::StatusOr<Process>& process);
  void OnEnded(const RankKey& key, std::optional<v1::FailureCause> cause);
  void Perform(std::vector<Effect> effects);
  void Do(SendMessage& effect);
  void Do(LaunchProcess& effect);
  void Do(KillProcess& effect);
  void Do(DirectRank& effect);
  void Do(AnswerRank& effect);
  void Do(ReadLogFile& effect);
  void Do(RemoveCheckpoint& effect);
  void Do(CloseSession& effect);
  void EndRank(const RankKey& key);
  void Connect();
  void SessionClosed(uint64_t session, const absl::Status& status);
  void ServeReads();
  void TakeReads(std::vector<v1::LogData> answers);
  void KeepHouse();
  void KeepLease();
  int WaitMilliseconds() const;
  bool MayLeave() const;
  static absl::Time Now();

  const AgentConfig config_;
  AgentMetrics* const metrics_;
  AgentCore core_;
  const LogFiles logs_;
  std::unique_ptr<RankServer> rank_server_;
  std::unique_ptr<CoordinatorSession> session_;
  std::unique_ptr<LeaseBeats> beats_;
  std::map<RankKey, Running> running_;
  std::list<WaitingRead> reads_;
  bool reading_ = false;  // a batch of reads_ is with the log thread
  std::mt19937 random_{std::random_device{}()};
  uint64_t session_number_ = 0;
  bool closed_here_ = false;  // the session ends because we closed it; the reason is told
  std::atomic<bool> ready_{false}, open_{false};
  std::atomic<int> stacks_wanted_{0};
  int64_t descriptors_ = 0;
  absl::Time connect_at_ = absl::InfiniteFuture();
  absl::Duration connect_delay_ = absl::ZeroDuration();
  absl::Time orphans_at_ = absl::InfinitePast(), house_at_ = absl::InfinitePast(), reads_at_ = absl::InfinitePast();
  absl::Time leave_by_ = absl::InfiniteFuture();
  int epoll_ = -1, event_ = -1, signal_ = -1, lock_ = -1;
  std::mutex mutex_;
  std::vector<Task> tasks_;
  // Last: what runs there uses the rest.
  std::unique_ptr<RankProcesses> processes_;
  TaskThread log_reader_{"athanor-logs"}, stack_reader_{"athanor-stacks"}, files_{"athanor-files"};
  ContactLog contact_{config_, &files_};
};

}  // namespace athanor::agent
