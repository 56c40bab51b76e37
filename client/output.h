// What the command line prints: tables, JSON, YAML, colours only on a terminal, text from elsewhere made harmless.
#pragma once

#include <google/protobuf/message.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "athanor/base/utf8_text.h"  // StripControlChars(), for text from elsewhere
#include "athanor/v1/job_service.pb.h"

namespace athanor {

enum class OutputFormat { kTable, kJson, kYaml };

struct Terminal {
  bool stdout_is_terminal = false, stderr_is_terminal = false, colours = false;
  int width = 80;
  static Terminal Detect(bool no_color_flag);
};

// Proto3 JSON mapping, two blanks of indent.
absl::Status PrintMessage(const google::protobuf::Message& message, OutputFormat format);
// The same in one line, for what is followed: an object, or an entry of a YAML list.
absl::Status PrintMessageLine(const google::protobuf::Message& message, OutputFormat format);
// Columns as wide as their widest cell, in characters. Control characters of cells are shown as escapes, line ends and
// tabs as blanks.
std::string FormatTable(std::vector<std::vector<std::string>> rows);
std::string FormatTime(const google::protobuf::Timestamp& time);
std::string FormatAge(const google::protobuf::Timestamp& time, absl::Time now);
std::string FormatBytes(int64_t bytes);
std::string FormatSeconds(double seconds);
std::string FormatFigure(double value);  // "0.1432", "1.43e-05": a small figure is not shown as 0.0000
// The first `columns` characters of UTF-8 text, none cut in two.
std::string FirstColumns(const std::string& text, size_t columns);
std::string StateName(v1::JobState state);  // "Running"

}  // namespace athanor
