#include "athanor/runner/metrics_log.h"

#include <cerrno>
#include <cmath>
#include <utility>

#include <nlohmann/json.hpp>
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/write_fence.h"

namespace athanor {
namespace {

constexpr char kHeader[] = "time,step,epoch,name,value\n";

// Names hold commas only if somebody wants to see this work.
std::string CsvField(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char letter : text) quoted += letter == '"' ? std::string("\"\"") : std::string(1, letter);
  return quoted + "\"";
}

std::string CsvLines(const std::string& time, int64_t step, double epoch,
                     const std::map<std::string, double>& metrics) {
  std::string lines;
  for (const auto& [name, value] : metrics) {
    absl::StrAppend(&lines, time, ",", step, ",", absl::StrFormat("%.6g", epoch), ",", CsvField(name), ",",
                    absl::StrFormat("%.9g", value), "\n");
  }
  return lines;
}

std::string JsonLine(const std::string& time, int64_t step, double epoch,
                     const std::map<std::string, double>& metrics) {
  nlohmann::json line = {{"time", time}, {"step", step}, {"epoch", epoch}};
  for (const auto& [name, value] : metrics) line[name] = std::isfinite(value) ? nlohmann::json(value) : nullptr;
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsLog>> MetricsLog::Open(const std::string& path, Format format) {
  std::FILE* file = std::fopen(path.c_str(), "a+e");
  if (file == nullptr) return FileError(errno, "create", path);
  std::unique_ptr<MetricsLog> log(new MetricsLog(path, format, file));
  RETURN_IF_ERROR(CheckWriteFence(path));
  std::string start;
  if (std::fseek(file, -1, SEEK_END) != 0) {
    if (format == Format::kCsv) start = kHeader;
  } else if (std::fgetc(file) != '\n') {
    start = "\n";
  }
  std::fseek(file, 0, SEEK_END);  // between reading and writing
  if (std::fwrite(start.data(), 1, start.size(), file) != start.size() || std::fflush(file) != 0)
    return FileError(errno, "write", path);
  return log;
}

MetricsLog::~MetricsLog() {
  std::fclose(file_);
}

absl::Status MetricsLog::Append(absl::Time time, int64_t step, double epoch,
                                const std::map<std::string, double>& metrics) {
  const std::string when = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone());
  RETURN_IF_ERROR(CheckWriteFence(path_));
  const std::string lines =
      format_ == Format::kCsv ? CsvLines(when, step, epoch, metrics) : JsonLine(when, step, epoch, metrics);
  if (std::fwrite(lines.data(), 1, lines.size(), file_) != lines.size() || std::fflush(file_) != 0)
    return FileError(errno, "write", path_);
  return absl::OkStatus();
}

}  // namespace athanor
