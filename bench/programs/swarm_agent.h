// One simulated agent: registers over its own Session stream, then beats when told and takes the time of each answer.
#pragma once

#include <grpcpp/client_context.h>

#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "athanor/v1/agent_service.grpc.pb.h"
#include "bench/programs/program.h"

namespace athanor::bench {

// What the swarm knows of its agents as a whole. Thread-safe through Locked().
struct SwarmState {
  std::mutex mutex;
  std::condition_variable changed;
  size_t registered = 0;
  size_t ended = 0;
  std::string first_error;  // of a session that ended before Leave()

  void Change(size_t SwarmState::* count, const std::string& error = "") {
    std::lock_guard lock(mutex);
    ++(this->*count);
    if (first_error.empty()) first_error = error;
    changed.notify_all();
  }
  bool Wait(std::chrono::seconds timeout, size_t SwarmState::* count, size_t wanted) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, timeout, [&] { return this->*count >= wanted; });
  }
};

// Begin(), Beat() and Leave() on one thread; gRPC's threads call the rest. Lives until the swarm has counted it as
// ended.
class SwarmAgent : public grpc::ClientBidiReactor<v1::AgentMessage, v1::CoordinatorMessage> {
 public:
  SwarmAgent(std::string name, SwarmState* swarm) : name_(std::move(name)), swarm_(swarm) {}
  void Begin(v1::AgentService::Stub& stub);
  // False: the answer to the last heartbeat has not come yet, and nothing was sent.
  bool Beat();
  void Leave();
  // Seconds from sending a heartbeat to its answer, since the last call.
  std::vector<double> TakeLatencies();

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  const std::string name_;
  SwarmState* const swarm_;
  grpc::ClientContext context_;
  v1::AgentMessage outgoing_;
  v1::CoordinatorMessage incoming_;
  std::mutex mutex_;
  bool writing_ = false, waiting_ = false, leaving_ = false, over_ = false;
  uint64_t number_ = 0;
  Clock::time_point sent_;
  std::vector<double> latencies_;
};

}  // namespace athanor::bench
