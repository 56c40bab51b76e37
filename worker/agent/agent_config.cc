#include "worker/agent/agent_config.h"

#include <sched.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/utf8_text.h"
#include "athanor/base/version.h"
#include "athanor/contract/job_limits.h"
#include "common/service/daemon_flags.h"

namespace athanor::agent {
namespace {

constexpr int kExitUsage = 2;

// A machine's name as a worker id: lower case, other characters become "-".
std::string MachineName() {
  char buffer[256] = {};
  gethostname(buffer, sizeof buffer - 1);
  std::string name = absl::AsciiStrToLower(buffer);
  for (char& c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '_') c = '-';
  }
  while (!name.empty() && !absl::ascii_isalnum(static_cast<unsigned char>(name.back()))) name.pop_back();
  return name.empty() ? "agent" : name.substr(0, 63);
}

// An IPv6 address may stand in brackets, as it must where a port follows; none follows here.
std::string BareHost(const std::string& host) {
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  const bool port =
      !bracketed && (host.find("]:") != std::string::npos || std::count(host.begin(), host.end(), ':') == 1);
  if (host.empty() || port)
    throw CLI::ValidationError("--host", absl::StrCat("'", host, "': expected a name or an address, without a port"));
  return bracketed ? host.substr(1, host.size() - 2) : host;
}

// The current folder may be gone.
std::string AbsoluteOrExit(const char* option, const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  if (!error) return absolute.lexically_normal().string();
  std::cerr << "athanor-agent: " << option << " '" << path << "': the current folder cannot be read ("
            << error.message() << "); give an absolute path\n";
  std::exit(kExitUsage);
}

void SetLabels(const std::vector<std::string>& pairs, AgentConfig& config) {
  for (const std::string& pair : pairs) {
    const size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0)
      throw CLI::ValidationError("--labels", absl::StrCat("'", pair, "': expected name=value"));
    config.labels[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
}

// Beside this program when installed, else in the tree that it was built in.
std::string DefaultTrainer() {
  std::error_code error;
  const std::filesystem::path here = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  const std::filesystem::path in_tree = here / "../trainer/athanor-trainer";
  return std::filesystem::exists(here / "athanor-trainer", error) || !std::filesystem::exists(in_tree, error)
             ? here / "athanor-trainer"
             : in_tree;
}

// What the coordinator would refuse at each connection, and each launch would find out, is told at the start.
void CheckOrThrow(const AgentConfig& config) {
  if (!IsName(config.name, kMaxWorkerNameBytes))
    throw CLI::ValidationError("--name", absl::StrCat("'", StripControlChars(config.name), "'; allowed: ", kNamePattern,
                                                      ", at most ", kMaxWorkerNameBytes, " bytes"));
  if (access(config.trainer.c_str(), X_OK) != 0)
    throw CLI::ValidationError("--trainer", absl::StrCat("cannot run ", config.trainer, ": ", strerror(errno)));
}

}  // namespace

int CountDevices(const std::string& device) {
  if (device == "cuda") {
    std::error_code error;
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/driver/nvidia/gpus", error))
      count += entry.is_directory() ? 1 : 0;
    return count;
  }
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  return sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? std::max(1, CPU_COUNT(&cpus)) : 1;
}

AgentConfig ParseAgentConfig(int argc, char** argv) {
  AgentConfig config;
  std::vector<std::string> labels;
  CLI::App app{"athanor-agent: runs the ranks of one machine for a coordinator."};
  app.set_version_flag("--version", absl::StrCat("athanor-agent ", Version(), " (", Commit(), ")"));
  AddConfigFile(app, "ATHANOR_AGENT");
  app.add_option("--coordinator", config.coordinator, "Address of athanord")->capture_default_str();
  app.add_option("--name", config.name, "Id of this worker, unique in the cluster [the machine's name]");
  app.add_option("--host", config.host, "Address at which other machines reach the ranks here")->capture_default_str();
  app.add_option("--device", config.device, "cpu or cuda")
      ->capture_default_str()
      ->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--slots", config.slots, "Ranks at once [CPUs, or GPUs]")->check(CLI::Range(1, 1024));
  app.add_option("--work-dir", config.work_dir, "Logs and the ranks' socket")->capture_default_str();
  app.add_option("--trainer", config.trainer, "Program of one rank [athanor-trainer beside this one]");
  app.add_option("--metrics-listen", config.metrics_listen, "HTTP address of /metrics, /healthz, /readyz")
      ->capture_default_str();
  app.add_option("--ports-file", config.ports_file, "Write the chosen ports there as JSON");
  app.add_option("--labels", labels, "name=value, several")->expected(0, 64);
  AddDuration(app, "--stop-grace", config.stop_grace,
              "At SIGTERM ranks get so long to save and leave; a second SIGTERM kills them");
  AddDuration(app, "--log-retention", config.log_retention.age, "Remove a job's logs so long after its last line here");
  app.add_option("--log-retention-bytes", config.log_retention.bytes,
                 "Remove the oldest jobs' logs while all take more [20GB]")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 60));
  app.add_option("--log-retention-jobs", config.log_retention.jobs, "Remove the oldest jobs' logs beyond so many jobs")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--rank-log-format", config.rank_log_format,
                 "Lines of the ranks' logs: text or json; a job may say otherwise")
      ->capture_default_str()
      ->check(CLI::IsMember({"text", "json"}));
  app.add_option("--tls-ca", config.channel.tls.ca, "PEM file");
  app.add_option("--tls-certificate", config.channel.tls.certificate, "PEM file");
  app.add_option("--tls-key", config.channel.tls.key, "PEM file, readable by the owner only");
  app.add_option("--token-file", config.channel.token_file, "Token that the coordinator asks for");
  app.add_option("--log-level", config.logging.level, "trace, debug, info, warn, error or off")->capture_default_str();
  app.add_option("--log-format", config.logging.format, "text or json")->capture_default_str();
  app.footer(
      "Example:\n  athanor-agent --coordinator 127.0.0.1:7070 --slots 2\n\nEnvironment: ATHANOR_AGENT_COORDINATOR and "
      "so on for each option.");
  BindEnvironment(app, "ATHANOR_AGENT");
  ParseOrExit(app, argc, argv);
  try {
    SetLabels(labels, config);
    config.host = BareHost(config.host);
  } catch (const CLI::ParseError& error) {
    ExitUsage(app, error);
  }
  if (config.name.empty()) config.name = MachineName();
  if (config.slots == 0) config.slots = CountDevices(config.device);
  if (config.trainer.empty()) config.trainer = DefaultTrainer();
  config.trainer = AbsoluteOrExit("--trainer", config.trainer);
  config.work_dir = AbsoluteOrExit("--work-dir", config.work_dir);
  try {
    CheckOrThrow(config);
  } catch (const CLI::ParseError& error) {
    ExitUsage(app, error);
  }
  return config;
}

}  // namespace athanor::agent
