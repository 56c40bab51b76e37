// Flags of athanord. Order of precedence: command line, environment (ATHANOR_…), --config FILE (YAML), default.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "common/service/logging_setup.h"
#include "server/rpc/grpc_server.h"

namespace athanor {

struct ServerConfig {
  std::string data_dir = "athanor-data";
  std::string checkpoint_root;  // default: <data_dir>/checkpoints
  GrpcServerOptions grpc;
  std::string metrics_listen = "127.0.0.1:9464";
  std::string ports_file;
  absl::Duration lease = absl::Seconds(10);
  // Of jobs that are over: so many, of so much memory and for so long; of workers that are lost: for so long.
  int32_t keep_jobs = 20000;
  int64_t keep_jobs_bytes = int64_t{512} << 20;
  absl::Duration keep_jobs_for = absl::Hours(24 * 30);
  absl::Duration keep_lost_workers_for = absl::Hours(24 * 7);
  bool in_memory = false;
  LoggingOptions logging{.program = "athanord"};
};

// Exits the process for --help and --version (code 0) and for bad usage (code 2, message on stderr).
ServerConfig ParseServerConfig(int argc, char** argv);

}  // namespace athanor
