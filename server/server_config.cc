#include "server/server_config.h"

#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "athanor/base/version.h"
#include "common/service/daemon_flags.h"

namespace athanor {

ServerConfig ParseServerConfig(int argc, char** argv) {
  ServerConfig config;
  CLI::App app{"athanord: the coordinator. Keeps what runs where, decides, and remembers it in RocksDB."};
  app.set_version_flag("--version", absl::StrCat("athanord ", Version(), " (", Commit(), ")"));
  AddConfigFile(app, "ATHANOR");
  app.add_option("--data-dir", config.data_dir, "Directory of the store; created with mode 0700")
      ->capture_default_str();
  app.add_option("--checkpoint-root", config.checkpoint_root,
                 "Where jobs keep their checkpoints; every agent must reach it [<data-dir>/checkpoints]");
  app.add_option("--listen", config.grpc.listen, "gRPC address; port 0 takes any free one")->capture_default_str();
  app.add_option("--metrics-listen", config.metrics_listen, "HTTP address of /metrics, /healthz, /readyz")
      ->capture_default_str();
  AddDuration(app, "--lease", config.lease, "An agent that is silent for so long is lost");
  app.add_option("--keep-jobs", config.keep_jobs, "So many jobs that are over are remembered")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000000));
  app.add_option("--keep-jobs-bytes", config.keep_jobs_bytes,
                 "Jobs that are over may take so much memory together, as 512MiB; the longest over are forgotten first")
      ->capture_default_str()
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->check(CLI::Range(int64_t{1} << 20, int64_t{1} << 40));
  AddDuration(app, "--keep-jobs-for", config.keep_jobs_for, "A job that is over is remembered for so long");
  AddDuration(app, "--keep-lost-workers-for", config.keep_lost_workers_for, "A lost worker is listed for so long");
  app.add_option("--tls-ca", config.grpc.tls.ca, "PEM file: clients must show a certificate of this authority");
  app.add_option("--tls-certificate", config.grpc.tls.certificate, "PEM file");
  app.add_option("--tls-key", config.grpc.tls.key, "PEM file, readable by the owner only");
  app.add_option("--token-file", config.grpc.token_file, "Every call must carry this token");
  app.add_flag("--insecure", config.grpc.insecure, "Allow plain text without a token beyond this machine");
  app.add_flag("--in-memory", config.in_memory, "Forget everything at exit; for trying things out");
  app.add_option("--log-level", config.logging.level, "trace, debug, info, warn, error or off")->capture_default_str();
  app.add_option("--log-format", config.logging.format, "text or json")->capture_default_str();
  app.add_option("--ports-file", config.ports_file, "Write the chosen ports there as JSON once serving");
  app.footer(
      "Example:\n  athanord --data-dir /var/lib/athanor --listen 127.0.0.1:7070\n\nEnvironment: ATHANOR_DATA_DIR and "
      "so on for each option.\nExit codes: 0 ok, 1 cannot "
      "start, 2 usage, 75 the store failed or could not be closed (restart it).");
  BindEnvironment(app, "ATHANOR");
  ParseOrExit(app, argc, argv);
  if (config.checkpoint_root.empty()) config.checkpoint_root = config.data_dir + "/checkpoints";
  return config;
}

}  // namespace athanor
