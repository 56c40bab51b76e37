// athanor-agent: build the objects, run the loop on this thread until a signal.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "athanor/base/descriptors.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/version.h"
#include "common/service/daemon_flags.h"
#include "common/service/disk_space.h"
#include "common/service/metrics_endpoint.h"
#include "worker/agent/agent_loop.h"
#include "worker/agent/process_launcher.h"

namespace athanor::agent {
namespace {

[[noreturn]] void EndProcess(const absl::Status& status) {
  if (!status.ok()) std::cerr << "athanor-agent: " << status.message() << "\n";
  std::fflush(nullptr);
  _exit(status.ok() ? 0 : 1);
}

absl::Status Serve(const AgentConfig& config) {
  RETURN_IF_ERROR(SetUpLogging(config.logging));
  AgentMetrics metrics;
  AgentLoop loop(config, &metrics);
  ASSIGN_OR_RETURN(std::unique_ptr<MetricsEndpoint> endpoint,
                   MetricsEndpoint::Start(
                       config.metrics_listen, metrics.registry, [&loop] { return loop.Healthy(); },
                       [&loop] { return loop.Ready(); }));
  WatchDiskSpace(metrics.registry, {{"work_dir", config.work_dir}});
  if (absl::Status written = WritePortsFile(config.ports_file, {{"metrics", endpoint->port()}}); !written.ok())
    EndProcess(written);
  Log(spdlog::level::info, "Serving",
      {{"version", Version()},
       {"name", config.name},
       {"slots", absl::StrCat(config.slots)},
       {"coordinator", config.coordinator},
       {"metrics_port", absl::StrCat(endpoint->port())}});
  // Taking the rest apart takes seconds, on a disk that hangs for ever, and has nothing to save.
  EndProcess(loop.Run());
}

}  // namespace
}  // namespace athanor::agent

ATHANOR_OPEN_STANDARD_DESCRIPTORS();

int main(int argc, char** argv) {
  const athanor::agent::AgentConfig config = athanor::agent::ParseAgentConfig(argc, argv);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any thread: the loop reads them from a descriptor
  signal(SIGPIPE, SIG_IGN);
  athanor::agent::RaisePriority();
  athanor::agent::EndProcess(athanor::agent::Serve(config));
}
