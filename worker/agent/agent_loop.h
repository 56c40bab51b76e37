// The agent's one thread of its own: owns AgentCore, the ranks' processes and the files; gRPC threads post to it.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/agent/agent_config.h"
#include "worker/agent/agent_core.h"
#include "worker/agent/agent_metrics.h"
#include "worker/agent/coordinator_session.h"
#include "worker/agent/log_files.h"
#include "worker/agent/process_launcher.h"
#include "worker/agent/trainer_service.h"

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

 private:
  struct Running {
    Process process;
    int64_t out_of_memory_kills = 0;
  };
  struct WaitingRead {
    v1::ReadLog request;
    absl::Time until;
  };
  using Task = std::function<void()>;

  absl::Status Prepare();
  void Post(Task task);  // thread-safe
  void DrainTasks();
  void OnSignal();
  void OnProcessEnd(const RankKey& key);
  void Perform(std::vector<Effect> effects);
  void Do(SendMessage& effect);
  void Do(LaunchProcess& effect);
  void Do(KillProcess& effect);
  void Do(DirectRank& effect);
  void Do(AnswerRank& effect);
  void Do(ReadLogFile& effect);
  void Do(RemoveCheckpoint& effect);
  void Do(CloseSession& effect);
  absl::StatusOr<Process> Launch(const v1::LaunchRank& launch);
  std::vector<std::string> Environment(const v1::LaunchRank& launch) const;
  void Connect();
  void SessionClosed(uint64_t session, const absl::Status& status);
  void ServeReads();
  int WaitMilliseconds() const;
  bool MayLeave() const;
  static absl::Time Now();

  const AgentConfig config_;
  AgentMetrics* const metrics_;
  AgentCore core_;
  LogFiles logs_;
  std::unique_ptr<TrainerDoor> door_;
  std::unique_ptr<CoordinatorSession> session_;
  std::map<RankKey, Running> running_;
  std::list<WaitingRead> reads_;
  std::mt19937 random_{std::random_device{}()};
  uint64_t session_number_ = 0;
  bool session_open_ = false;
  std::atomic<bool> ready_{false};
  absl::Time connect_at_ = absl::InfiniteFuture();
  absl::Duration connect_delay_ = absl::ZeroDuration();
  absl::Time caps_at_ = absl::InfinitePast();
  absl::Time leave_by_ = absl::InfiniteFuture();
  int epoll_ = -1, event_ = -1, signal_ = -1, lock_ = -1;
  std::mutex mutex_;
  std::vector<Task> tasks_;
};

}  // namespace athanor::agent
