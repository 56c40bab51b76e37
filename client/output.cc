#include "client/output.h"

#include <google/protobuf/util/json_util.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

// Keys of maps are text, whatever they look like: 3.10, true, no.
bool PlainKey(const std::string& key) {
  static const std::set<std::string>& words =
      *new std::set<std::string>{"true", "false", "null", "yes", "no", "on", "off", "y", "n"};
  const bool name =
      !key.empty() && absl::ascii_isalpha(static_cast<unsigned char>(key[0])) &&
      std::all_of(key.begin(), key.end(), [](unsigned char c) { return absl::ascii_isalnum(c) || c == '_'; });
  return name && !words.contains(absl::AsciiStrToLower(key));
}

void EmitYaml(const nlohmann::ordered_json& value, YAML::Emitter& out) {
  if (value.is_object()) {
    out << YAML::BeginMap;
    for (const auto& [key, child] : value.items()) {
      out << YAML::Key;
      (PlainKey(key) ? out : out << YAML::DoubleQuoted) << key << YAML::Value;
      EmitYaml(child, out);
    }
    out << YAML::EndMap;
  } else if (value.is_array()) {
    out << YAML::BeginSeq;
    for (const auto& child : value) EmitYaml(child, out);
    out << YAML::EndSeq;
  } else if (value.is_string()) {
    out << YAML::DoubleQuoted << value.get<std::string>();
  } else {
    out << value.dump();
  }
}

absl::StatusOr<std::string> JsonText(const google::protobuf::Message& message, bool whitespace) {
  std::string text;
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = whitespace;
  const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
  if (status.ok()) return text;
  return absl::InternalError(absl::StrCat("cannot print the answer: ", std::string(status.message())));
}

size_t Columns(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string OneLine(std::string text) {
  std::replace_if(text.begin(), text.end(), [](char c) { return c == '\n' || c == '\t'; }, ' ');
  return text;
}

bool Set(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

}  // namespace

Terminal Terminal::Detect(bool no_color_flag) {
  Terminal terminal;
  terminal.stdout_is_terminal = isatty(1) != 0;
  terminal.stderr_is_terminal = isatty(2) != 0;
  const char* term = std::getenv("TERM");
  const bool dumb = term != nullptr && std::string(term) == "dumb";
  terminal.colours =
      !no_color_flag && !Set("NO_COLOR") && ((terminal.stderr_is_terminal && !dumb) || Set("CLICOLOR_FORCE"));
  winsize size = {};
  if (ioctl(2, TIOCGWINSZ, &size) == 0 && size.ws_col > 20) terminal.width = size.ws_col;
  return terminal;
}

absl::Status PrintMessage(const google::protobuf::Message& message, OutputFormat format) {
  ASSIGN_OR_RETURN(std::string text, JsonText(message, /*whitespace=*/true));
  if (format == OutputFormat::kYaml) {
    YAML::Emitter out;
    EmitYaml(nlohmann::ordered_json::parse(text), out);
    text = absl::StrCat(out.c_str(), "\n");
  }
  std::cout << text << std::flush;
  return absl::OkStatus();
}

absl::Status PrintMessageLine(const google::protobuf::Message& message, OutputFormat format) {
  ASSIGN_OR_RETURN(const std::string text, JsonText(message, /*whitespace=*/false));
  std::cout << (format == OutputFormat::kYaml ? "- " : "") << text << "\n";  // JSON is YAML
  return absl::OkStatus();
}

std::string FormatTable(std::vector<std::vector<std::string>> rows) {
  std::vector<size_t> widths;
  for (std::vector<std::string>& row : rows) {
    for (std::string& cell : row) cell = OneLine(StripControlChars(cell));
  }
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Columns(row[i]));
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - Columns(row[i]) + 2, ' ');
    }
    text += line + "\n";
  }
  return text;
}

std::string FormatTime(const google::protobuf::Timestamp& time) {
  if (time.seconds() == 0) return "-";
  return absl::FormatTime("%Y-%m-%d %H:%M:%E3S",
                          absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos()),
                          absl::LocalTimeZone());
}

std::string FormatSeconds(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "-";
  if (seconds < 10) return absl::StrFormat("%.1fs", seconds);
  const auto whole = static_cast<int64_t>(seconds);
  if (whole < 60) return absl::StrCat(whole, "s");
  if (whole < 3600) return absl::StrFormat("%dm%02ds", whole / 60, whole % 60);
  if (whole < 48 * 3600) return absl::StrFormat("%dh%02dm", whole / 3600, whole / 60 % 60);
  return absl::StrCat(whole / 86400, "d");
}

std::string FormatAge(const google::protobuf::Timestamp& time, absl::Time now) {
  return time.seconds() == 0 ? "-" : FormatSeconds(absl::ToDoubleSeconds(now - absl::FromUnixSeconds(time.seconds())));
}

std::string FormatFigure(double value) {
  return std::abs(value) >= 1e-3 || value == 0 ? absl::StrFormat("%.4f", value) : absl::StrFormat("%.3g", value);
}

std::string FormatBytes(int64_t bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  return unit == 0 ? absl::StrCat(bytes, " B") : absl::StrFormat("%.1f %s", value, units[unit]);
}

std::string FirstColumns(const std::string& text, size_t columns) {
  size_t end = 0;
  for (size_t shown = 0; end < text.size(); ++end) {
    const bool begins = (text[end] & 0xc0) != 0x80;
    if (begins && ++shown > columns) break;
  }
  return text.substr(0, end);
}

std::string StateName(v1::JobState state) {
  const char* names[] = {"?",         "Queued",     "Running",   "BackingOff", "Suspending",
                         "Suspended", "Cancelling", "Succeeded", "Failed",     "Cancelled"};
  return state >= 0 && state <= 9 ? names[state] : "?";
}

}  // namespace athanor
