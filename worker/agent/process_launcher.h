// Starts, watches and kills the ranks' processes. Thread: the agent's loop only (a rank dies with the thread that
// started it).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/v1/failure.pb.h"
#include "worker/agent/rank_key.h"

namespace athanor::agent {

struct ProcessRequest {
  std::string program;                   // absolute path
  std::vector<std::string> environment;  // NAME=value, complete
  std::string log_path;                  // stdout and stderr are appended there
  std::string working_directory;
};

struct Process {
  int64_t pid = 0;
  int pidfd = -1;
};

// This process goes before the ranks that it starts, where the system allows it: on a machine that they keep busy the
// agent must be heard. Ranks get the priority that it had before. Before any other thread is started.
void RaisePriority();

// In its own session and process group, stdin from /dev/null, no descriptor but 0, 1 and 2 inherited, SIGKILL when we
// die.
absl::StatusOr<Process> StartProcess(const ProcessRequest& request);
// The whole process group; harmless after the end.
void KillProcessGroup(const Process& process);

struct ExitStatus {
  int code = 0;
  int signal = 0;
};
// Reaps. The pidfd must be readable.
absl::StatusOr<ExitStatus> Reap(const Process& process);

}  // namespace athanor::agent
