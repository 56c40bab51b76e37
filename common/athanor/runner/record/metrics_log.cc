#include "athanor/runner/record/metrics_log.h"

#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <optional>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
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

// The step of a row; unset for a header and for what a crash cut off.
std::optional<int64_t> StepOf(MetricsLog::Format format, const std::string& line) {
  int64_t step = 0;
  if (format == MetricsLog::Format::kCsv) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits(',', 2));
    return fields.size() == 3 && absl::SimpleAtoi(fields[1], &step) ? std::optional(step) : std::nullopt;
  }
  const nlohmann::json row = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  const auto found = row.is_object() ? row.find("step") : row.end();
  if (!row.is_object() || found == row.end() || !found->is_number_integer()) return std::nullopt;
  return found->get<int64_t>();
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsLog>> MetricsLog::Open(const std::string& path, Format format) {
  std::unique_ptr<MetricsLog> log(new MetricsLog(path, format, nullptr));
  RETURN_IF_ERROR(log->Start());
  return log;
}

absl::Status MetricsLog::Start() {
  RETURN_IF_ERROR(CheckWriteFence(path_));
  file_ = std::fopen(path_.c_str(), "a+e");
  if (file_ == nullptr) return FileError(errno, "create", path_);
  std::string start;
  if (std::fseek(file_, -1, SEEK_END) != 0) {
    if (format_ == Format::kCsv) start = kHeader;
  } else if (std::fgetc(file_) != '\n') {
    start = "\n";
  }
  std::fseek(file_, 0, SEEK_END);  // between reading and writing
  if (std::fwrite(start.data(), 1, start.size(), file_) != start.size() || std::fflush(file_) != 0)
    return FileError(errno, "write", path_);
  size_ = std::ftell(file_);
  return absl::OkStatus();
}

MetricsLog::~MetricsLog() {
  if (file_ != nullptr) std::fclose(file_);
}

std::string MetricsLog::name() const {
  return std::filesystem::path(path_).filename().string();
}

absl::Status MetricsLog::DropRows(int64_t offset, const std::function<bool(int64_t step)>& drop) {
  if (file_ == nullptr || offset <= 0 || offset >= size_) return absl::OkStatus();
  std::ifstream file(path_);
  file.seekg(offset - 1);
  if (file.get() != '\n') return absl::OkStatus();
  std::string kept, line;
  bool dropped = false;
  while (std::getline(file, line)) {
    const std::optional<int64_t> step = StepOf(format_, line);
    if (step.has_value() && drop(*step)) {
      dropped = true;
    } else {
      absl::StrAppend(&kept, line, "\n");
    }
  }
  if (!dropped) return absl::OkStatus();
  if (ftruncate(fileno(file_), offset) != 0) return FileError(errno, "cut", path_);
  size_ = offset;
  if (std::fwrite(kept.data(), 1, kept.size(), file_) != kept.size() || std::fflush(file_) != 0)
    return FileError(errno, "write", path_);
  size_ += static_cast<int64_t>(kept.size());
  return absl::OkStatus();
}

absl::Status MetricsLog::SetAside() {
  const int64_t empty = format_ == Format::kCsv ? static_cast<int64_t>(sizeof(kHeader)) - 1 : 0;
  if (file_ == nullptr || size_ <= empty) return absl::OkStatus();
  const std::filesystem::path path(path_);
  std::filesystem::path free;
  std::error_code error;
  for (int number = 1; free.empty() || std::filesystem::exists(free, error); ++number)
    free = path.parent_path() / absl::StrCat(path.stem().string(), ".", number, path.extension().string());
  std::filesystem::rename(path, free, error);
  if (error) return FileError(error.value(), "set aside", path_);
  std::fclose(std::exchange(file_, nullptr));
  return Start();
}

absl::Status MetricsLog::Append(absl::Time time, int64_t step, double epoch,
                                const std::map<std::string, double>& metrics) {
  const std::string when = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone());
  RETURN_IF_ERROR(CheckWriteFence(path_));
  if (file_ == nullptr) return absl::FailedPreconditionError(absl::StrCat(path_, " is not open"));
  const std::string lines =
      format_ == Format::kCsv ? CsvLines(when, step, epoch, metrics) : JsonLine(when, step, epoch, metrics);
  if (std::fwrite(lines.data(), 1, lines.size(), file_) != lines.size() || std::fflush(file_) != 0)
    return FileError(errno, "write", path_);
  size_ += static_cast<int64_t>(lines.size());
  return absl::OkStatus();
}

}  // namespace athanor
