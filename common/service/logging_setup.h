// Structured logs through spdlog: one line per event, key=value in text, one object in JSON. To stderr.
//
//   SetUpLogging({.program = "athanord", .level = "info", .format = "text"});
//   Log(spdlog::level::info, "RankFailed", {{"job", id}, {"generation", "3"}, {"rank", "1"}}, "killed by signal 9");
//   // 2026-11-23T20:00:00.123Z INFO athanord RankFailed job=digits-4f7k generation=3 rank=1 msg="killed by signal 9"
//
// Values are escaped: a line never holds a control character. Thread-safe.
#pragma once

#include <spdlog/common.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"

namespace athanor {

struct LoggingOptions {
  std::string program;
  std::string level = "info";   // trace debug info warn error off
  std::string format = "text";  // or "json"
};

// Also takes over the lines that gRPC and protobuf write by themselves (events "Grpc", "Protobuf").
absl::Status SetUpLogging(const LoggingOptions& options);

using LogField = std::pair<std::string_view, std::string>;
void Log(spdlog::level::level_enum level, std::string_view event, std::initializer_list<LogField> fields,
         std::string_view message = "");

}  // namespace athanor
