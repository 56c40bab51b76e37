// One structured line per event on standard error, which is the rank's log file. The form is that of
// common/service/logging_setup.h, whose library must not meet LibTorch's headers.
//
//   SetLogIdentity("digits-4f7k", 3, 1);
//   LogLine("INFO", "Joined", {{"world", "2"}});
//   // 2026-11-23T20:00:00.123Z INFO athanor-trainer Joined job=digits-4f7k generation=3 rank=1 world=2
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace athanor {

// Before other threads log.
void SetLogIdentity(const std::string& job, int generation, int rank);

// Thread-safe; one write for each line. Control characters are escaped.
void LogLine(std::string_view level, std::string_view event,
             std::initializer_list<std::pair<std::string_view, std::string>> fields, std::string_view message = "");

}  // namespace athanor
