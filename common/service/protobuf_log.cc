#include "common/service/protobuf_log.h"

#include <google/protobuf/stubs/logging.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "common/service/logging_setup.h"

namespace athanor {
namespace {

thread_local std::string refused_field;

// "String field 'athanor.v1.JobSpec.name' contains invalid UTF-8 data when parsing a protocol buffer. ..."
void ToLog(google::protobuf::LogLevel level, const char* file, int line, const std::string& message) {
  absl::string_view rest = message;
  if (absl::ConsumePrefix(&rest, "String field '")) refused_field = std::string(rest.substr(0, rest.find('\'')));
  const spdlog::level::level_enum severity = level == google::protobuf::LOGLEVEL_INFO      ? spdlog::level::info
                                             : level == google::protobuf::LOGLEVEL_WARNING ? spdlog::level::warn
                                                                                           : spdlog::level::err;
  Log(severity, "Protobuf", {{"at", absl::StrCat(file, ":", line)}}, message);
}

}  // namespace

void SendProtobufLogToLog() {
  google::protobuf::SetLogHandler(&ToLog);
}

std::string TakeRefusedField() {
  return std::exchange(refused_field, {});
}

}  // namespace athanor
