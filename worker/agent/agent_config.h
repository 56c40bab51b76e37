// Flags of athanor-agent. Order of precedence: command line, environment (ATHANOR_AGENT_…), --config FILE (YAML),
// default.
#pragma once

#include <map>
#include <string>

#include "absl/time/time.h"
#include "common/service/channel.h"
#include "common/service/logging_setup.h"
#include "worker/agent/job_folders.h"

namespace athanor::agent {

struct AgentConfig {
  std::string coordinator = "127.0.0.1:7070";
  std::string name;  // default: the machine's name
  std::string host = "127.0.0.1";
  std::string device = "cpu";
  int slots = 0;  // default: CPUs, or GPUs
  std::string work_dir = "athanor-agent";
  std::string trainer;  // default: athanor-trainer beside this program
  std::string metrics_listen = "127.0.0.1:9465";
  std::string ports_file;
  std::map<std::string, std::string> labels;
  absl::Duration stop_grace = absl::Seconds(30);
  LogRetention log_retention;
  std::string rank_log_format = "text";  // or "json"
  ChannelOptions channel;
  LoggingOptions logging{.program = "athanor-agent"};
};

// Exits the process for --help and --version (code 0) and for bad usage (code 2).
AgentConfig ParseAgentConfig(int argc, char** argv);

// CPUs this process may use; GPUs the driver shows.
int CountDevices(const std::string& device);

}  // namespace athanor::agent
