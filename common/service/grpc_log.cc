#include "common/service/grpc_log.h"

#include <grpc/support/log.h>

#include <cstdlib>
#include <cstring>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "common/service/logging_setup.h"

namespace athanor {
namespace {

std::string program_name;  // set once, before any channel

std::string Place(const gpr_log_func_args& line) {
  const char* slash = strrchr(line.file, '/');
  return absl::StrCat(slash == nullptr ? line.file : slash + 1, ":", line.line);
}

void ToLog(gpr_log_func_args* line) {
  const spdlog::level::level_enum level = line->severity == GPR_LOG_SEVERITY_ERROR  ? spdlog::level::warn
                                          : line->severity == GPR_LOG_SEVERITY_INFO ? spdlog::level::info
                                                                                    : spdlog::level::debug;
  Log(level, "Grpc", {{"at", Place(*line)}}, line->message);
}

void ToStderr(gpr_log_func_args* line) {
  std::cerr << absl::StrCat(program_name, ": gRPC: ", line->message, " (", Place(*line), ")\n");
}

}  // namespace

void SendGrpcLogToLog() {
  gpr_set_log_function(ToLog);
}

void SendGrpcLogToStderr(const std::string& program) {
  program_name = program;
  gpr_set_log_function(std::getenv("GRPC_VERBOSITY") == nullptr ? [](gpr_log_func_args*) {} : ToStderr);
}

}  // namespace athanor
