#include "common/service/logging_setup.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cctype>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/service/grpc_log.h"
#include "common/service/protobuf_log.h"

namespace athanor {
namespace {

std::string program_name = "athanor";  // set once, before any thread
bool json_format = false;

bool NeedsQuotes(std::string_view text) {
  for (const unsigned char c : text) {
    if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c >= 0x7f) return true;
  }
  return text.empty();
}

// JSON's escaping is known to every reader and leaves no control character.
std::string Quoted(std::string_view text) {
  return nlohmann::json(std::string(text)).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

std::string Timestamp() {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
}

std::string UpperLevel(spdlog::level::level_enum level) {
  std::string name(spdlog::level::to_string_view(level).data(), spdlog::level::to_string_view(level).size());
  for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

}  // namespace

absl::Status SetUpLogging(const LoggingOptions& options) {
  const auto level = spdlog::level::from_str(options.level);
  if (level == spdlog::level::off && options.level != "off") {
    return absl::InvalidArgumentError(
        absl::StrCat("log level '", options.level, "': one of trace, debug, info, warn, error, off"));
  }
  if (options.format != "text" && options.format != "json") {
    return absl::InvalidArgumentError(absl::StrCat("log format '", options.format, "': text or json"));
  }
  program_name = options.program;
  json_format = options.format == "json";
  auto logger = std::make_shared<spdlog::logger>(options.program, std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%v");
  logger->set_level(level);
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
  SendGrpcLogToLog();
  SendProtobufLogToLog();
  return absl::OkStatus();
}

void Log(spdlog::level::level_enum level, std::string_view event, std::initializer_list<LogField> fields,
         std::string_view message) {
  spdlog::logger* logger = spdlog::default_logger_raw();
  if (!logger->should_log(level)) return;
  std::string line;
  if (json_format) {
    nlohmann::ordered_json object = {
        {"time", Timestamp()}, {"level", UpperLevel(level)}, {"program", program_name}, {"event", std::string(event)}};
    for (const auto& [name, value] : fields) {
      if (!value.empty()) object[std::string(name)] = value;
    }
    if (!message.empty()) object["msg"] = std::string(message);
    line = object.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  } else {
    line = absl::StrCat(Timestamp(), " ", UpperLevel(level), " ", program_name, " ", std::string(event));
    for (const auto& [name, value] : fields) {
      if (!value.empty())
        absl::StrAppend(&line, " ", std::string(name), "=", NeedsQuotes(value) ? Quoted(value) : value);
    }
    if (!message.empty()) absl::StrAppend(&line, " msg=", Quoted(message));
  }
  logger->log(level, "{}", line);
}

}  // namespace athanor
