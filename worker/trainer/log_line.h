// One structured line per event on standard error, which is the rank's log file. The form is that of
// common/service/logging_setup.h, whose library must not meet LibTorch's headers: key=value, or one JSON object with
// time, level, event, job, generation, rank, the step that was finished last, the fields and msg.
//
//   SetLogIdentity("digits-4f7k", 3, 1);
//   LogLine("INFO", "Joined", {{"world", "2"}});
//   // 2026-11-23T20:00:00.123Z INFO athanor-trainer Joined job=digits-4f7k generation=3 rank=1 world=2
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace athanor {

// Before other threads log: "json", or else text.
void SetLogFormat(std::string_view format);
void SetLogIdentity(const std::string& job, int generation, int rank);
// Thread-safe.
void SetLogStep(int64_t step);

using LogFields = std::initializer_list<std::pair<std::string_view, std::string>>;
// Thread-safe; one write for each line. Control characters are escaped.
void LogLine(std::string_view level, std::string_view event, const LogFields& fields, std::string_view message = "");

}  // namespace athanor
