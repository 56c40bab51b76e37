// athanor-agent: build the objects, run the loop on this thread until a signal.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/version.h"
#include "common/service/daemon_flags.h"
#include "common/service/metrics_endpoint.h"
#include "worker/agent/agent_loop.h"

namespace athanor::agent {
namespace {

absl::Status Serve(const AgentConfig& config) {
  RETURN_IF_ERROR(SetUpLogging(config.logging));
  AgentMetrics metrics;
  AgentLoop loop(config, &metrics);
  ASSIGN_OR_RETURN(std::unique_ptr<MetricsEndpoint> endpoint,
                   MetricsEndpoint::Start(config.metrics_listen, metrics.registry, [&loop] { return loop.Ready(); }));
  RETURN_IF_ERROR(WritePortsFile(config.ports_file, {{"metrics", endpoint->port()}}));
  Log(spdlog::level::info, "Serving",
      {{"version", Version()},
       {"name", config.name},
       {"slots", absl::StrCat(config.slots)},
       {"coordinator", config.coordinator},
       {"metrics_port", absl::StrCat(endpoint->port())}});
  RETURN_IF_ERROR(loop.Run());
  // The endpoint's own stop takes seconds and has nothing to save.
  std::fflush(nullptr);
  _exit(0);
}

}  // namespace
}  // namespace athanor::agent

int main(int argc, char** argv) {
  const athanor::agent::AgentConfig config = athanor::agent::ParseAgentConfig(argc, argv);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any thread: the loop reads them from a descriptor
  signal(SIGPIPE, SIG_IGN);
  const absl::Status status = athanor::agent::Serve(config);
  std::cerr << "athanor-agent: " << status.message() << "\n";
  std::fflush(nullptr);
  _exit(1);
}
