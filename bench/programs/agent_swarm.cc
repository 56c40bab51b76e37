// Thousands of simulated agents against a running coordinator: each has its own Session stream and sends a heartbeat a
// second. Measures the coordinator's CPU time and memory from /proc, the time to each heartbeat's answer, and a
// client's unary calls meanwhile.
//
//   bench_agent_swarm '{"server": "127.0.0.1:7070", "pid": 4711, "agents": 1000, "channels": 16, "seconds": 10}'
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <memory>
#include <sstream>
#include <thread>

#include "absl/strings/str_format.h"
#include "athanor/base/status_macros.h"
#include "athanor/v1/job_service.grpc.pb.h"
#include "bench/programs/swarm_agent.h"
#include "common/service/channel.h"
#include "common/service/grpc_status.h"

namespace athanor::bench {
namespace {

constexpr auto kRegisterTimeout = std::chrono::seconds(60);
constexpr auto kLeaveTimeout = std::chrono::seconds(30);
constexpr auto kPacerTick = std::chrono::milliseconds(2);
constexpr auto kProbeEvery = std::chrono::milliseconds(25);

// User and system time of another process, seconds.
absl::StatusOr<double> CpuSeconds(int64_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::string text;
  if (!std::getline(file, text)) return absl::NotFoundError(absl::StrCat("no process ", pid));
  std::istringstream fields(text.substr(text.rfind(')') + 2));
  std::string skipped;
  for (int field = 3; field < 14; ++field) fields >> skipped;  // man 5 proc: 14 is utime, 15 stime
  int64_t user = 0, system = 0;
  fields >> user >> system;
  return static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

// A "VmRSS:  123 kB" line of /proc/PID/status, in bytes; 0 when there is none.
int64_t StatusBytes(int64_t pid, const std::string& name) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/status"));
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(name + ":", 0) == 0) return std::stoll(line.substr(name.size() + 1)) * 1024;
  }
  return 0;
}

double OwnCpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

class Swarm {
 public:
  absl::Status Connect(const nlohmann::json& settings) {
    const size_t agents = settings["agents"];
    const size_t channels = std::clamp<size_t>(settings["channels"], 1, agents);
    for (size_t i = 0; i < channels; ++i) {
      ASSIGN_OR_RETURN(const auto channel, MakeChannel(settings["server"], {}));
      stubs_.push_back(v1::AgentService::NewStub(channel));
    }
    for (size_t i = 0; i < agents; ++i) {
      agents_.push_back(std::make_unique<SwarmAgent>(absl::StrFormat("swarm-%05d", i), &state_));
      agents_.back()->Begin(*stubs_[i % channels]);
      // A burst of connections is not what is measured: a few hundred under way at a time.
      if (i % 256 == 255 && !state_.Wait(kRegisterTimeout, &SwarmState::registered, i - 254)) break;
    }
    if (state_.Wait(kRegisterTimeout, &SwarmState::registered, agents)) return absl::OkStatus();
    return absl::DeadlineExceededError(
        absl::StrCat(state_.registered, " of ", agents, " agents registered; ", state_.first_error));
  }

  // Beats `rounds` times a second each, spread evenly over the second.
  void Beat(double seconds) {
    const Clock::time_point began = Clock::now();
    const double spacing = 1.0 / static_cast<double>(agents_.size());
    int64_t next = 0;
    std::mutex mutex;
    std::condition_variable never;
    std::unique_lock lock(mutex);
    for (double now = 0; now < seconds; now = SecondsSince(began)) {
      const auto due = static_cast<int64_t>(now / spacing);
      lag_ = std::max(lag_, static_cast<double>(due - next) * spacing);
      for (; next <= due; ++next) missed_ += agents_[static_cast<size_t>(next) % agents_.size()]->Beat() ? 0 : 1;
      sent_ = next;
      never.wait_for(lock, kPacerTick);
    }
  }

  nlohmann::json Heartbeats() {
    std::vector<double> all;
    for (const auto& agent : agents_) {
      const std::vector<double> own = agent->TakeLatencies();
      all.insert(all.end(), own.begin(), own.end());
    }
    return {
        {"sent", sent_}, {"not_sent", missed_}, {"generator_lag_ms_max", lag_ * 1e3}, {"answer", Distribution(all)}};
  }
  void Forget() {
    for (const auto& agent : agents_) agent->TakeLatencies();
    sent_ = missed_ = 0;
    lag_ = 0;
  }
  size_t lost() {
    std::lock_guard lock(state_.mutex);
    return state_.ended;
  }
  absl::Status Leave() {
    for (const auto& agent : agents_) agent->Leave();
    if (state_.Wait(kLeaveTimeout, &SwarmState::ended, agents_.size())) return absl::OkStatus();
    return absl::DeadlineExceededError("some sessions did not end");
  }

 private:
  std::vector<std::unique_ptr<v1::AgentService::Stub>> stubs_;
  std::vector<std::unique_ptr<SwarmAgent>> agents_;
  SwarmState state_;
  int64_t sent_ = 0, missed_ = 0;
  double lag_ = 0;
};

// A client that asks for the status again and again.
class Probe {
 public:
  absl::Status Connect(const std::string& server) {
    ASSIGN_OR_RETURN(const auto channel, MakeChannel(server, {}));
    stub_ = v1::ClusterService::NewStub(channel);
    return Ask().status();
  }
  absl::StatusOr<v1::ClusterStatus> Ask() {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    context.set_wait_for_ready(true);
    v1::ClusterStatus status;
    const Clock::time_point began = Clock::now();
    RETURN_IF_ERROR(FromGrpc(stub_->GetStatus(&context, {}, &status)));
    seconds_.push_back(SecondsSince(began));
    return status;
  }
  void Start() {
    seconds_.clear();
    thread_ = std::thread([this] {
      std::unique_lock lock(mutex_);
      while (!wake_.wait_for(lock, kProbeEvery, [this] { return stop_; })) {
        if (!Ask().ok()) ++failed_;
      }
    });
  }
  nlohmann::json Stop() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    thread_.join();
    return {{"failed", failed_}, {"latency", Distribution(seconds_)}};
  }

 private:
  std::unique_ptr<v1::ClusterService::Stub> stub_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  int64_t failed_ = 0;
  std::vector<double> seconds_;
};

absl::StatusOr<nlohmann::json> Run(const nlohmann::json& settings) {
  const int64_t pid = settings["pid"];
  const double seconds = settings["seconds"];
  Probe probe;
  RETURN_IF_ERROR(probe.Connect(settings["server"]));
  const int64_t bytes_before = StatusBytes(pid, "VmRSS");
  Swarm swarm;
  const Clock::time_point connecting = Clock::now();
  RETURN_IF_ERROR(swarm.Connect(settings));
  const double connect_seconds = SecondsSince(connecting);
  swarm.Beat(settings["warm_up_seconds"]);
  swarm.Forget();

  probe.Start();
  ASSIGN_OR_RETURN(const double cpu_before, CpuSeconds(pid));
  const double own_before = OwnCpuSeconds();
  const Clock::time_point began = Clock::now();
  swarm.Beat(seconds);
  const double elapsed = SecondsSince(began);
  ASSIGN_OR_RETURN(const double cpu_after, CpuSeconds(pid));
  const double own_after = OwnCpuSeconds();
  const nlohmann::json probed = probe.Stop();

  ASSIGN_OR_RETURN(const v1::ClusterStatus status, probe.Ask());
  nlohmann::json workers = nlohmann::json::object();
  for (const auto& [state, count] : status.workers_by_state()) workers[state] = count;
  nlohmann::json result = {{"connect_seconds", connect_seconds},
                           {"seconds", elapsed},
                           {"coordinator_cores", (cpu_after - cpu_before) / elapsed},
                           {"generator_cores", (own_after - own_before) / elapsed},
                           {"coordinator_rss_bytes", StatusBytes(pid, "VmRSS")},
                           {"coordinator_peak_rss_bytes", StatusBytes(pid, "VmHWM")},
                           {"coordinator_rss_bytes_before", bytes_before},
                           {"heartbeats", swarm.Heartbeats()},
                           {"status_calls", probed},
                           {"workers_by_state", workers},
                           {"sessions_lost", swarm.lost()}};
  RETURN_IF_ERROR(swarm.Leave());
  return result;
}

}  // namespace
}  // namespace athanor::bench

int main(int argc, char** argv) {
  return athanor::bench::Main(
      argc, argv,
      {{"server", ""}, {"pid", 0}, {"agents", 1000}, {"channels", 16}, {"seconds", 10}, {"warm_up_seconds", 3}},
      athanor::bench::Run);
}
