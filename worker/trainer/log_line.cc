#include "worker/trainer/log_line.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include <nlohmann/json.hpp>
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "athanor/base/utf8_text.h"

namespace athanor {
namespace {

constexpr size_t kMaxMessageBytes = 8192;

struct Identity {
  std::string job;
  int generation = 0, rank = 0;
  bool json = false;
};

Identity& TheIdentity() {
  static Identity& identity = *new Identity;
  return identity;
}

std::atomic<int64_t> current_step{-1};

std::string Value(std::string_view text) {
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return c > ' ' && c < 0x7f && c != '"' && c != '\\' && c != '=';
  });
  return plain ? std::string(text) : absl::StrCat("\"", absl::Utf8SafeCEscape(std::string(text)), "\"");
}

std::string Timestamp() {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
}

std::string JsonLine(std::string_view level, std::string_view event, const LogFields& fields,
                     std::string_view message) {
  const Identity& identity = TheIdentity();
  nlohmann::ordered_json line = {
      {"time", Timestamp()}, {"level", level}, {"program", "athanor-trainer"}, {"event", event}};
  if (!identity.job.empty()) {
    line["job"] = identity.job;
    line["generation"] = identity.generation;
    line["rank"] = identity.rank;
  }
  if (const int64_t step = current_step.load(std::memory_order_relaxed); step >= 0) line["step"] = step;
  for (const auto& [name, value] : fields) {
    int64_t whole = 0;
    double number = 0;
    if (absl::SimpleAtoi(value, &whole)) {
      line[std::string(name)] = whole;
    } else if (absl::SimpleAtod(value, &number) && std::isfinite(number)) {
      line[std::string(name)] = number;
    } else {
      line[std::string(name)] = value;
    }
  }
  if (!message.empty()) line["msg"] = CutUtf8(message, kMaxMessageBytes);
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string TextLine(std::string_view level, std::string_view event, const LogFields& fields,
                     std::string_view message) {
  const Identity& identity = TheIdentity();
  std::string line = absl::StrCat(Timestamp(), " ", std::string(level), " athanor-trainer ", std::string(event));
  if (!identity.job.empty())
    absl::StrAppend(&line, " job=", Value(identity.job), " generation=", identity.generation, " rank=", identity.rank);
  for (const auto& [name, value] : fields) absl::StrAppend(&line, " ", std::string(name), "=", Value(value));
  if (!message.empty()) absl::StrAppend(&line, " msg=", Value(CutUtf8(message, kMaxMessageBytes)));
  return line;
}

}  // namespace

void SetLogFormat(std::string_view format) {
  TheIdentity().json = format == "json";
}

void SetLogIdentity(const std::string& job, int generation, int rank) {
  Identity& identity = TheIdentity();
  identity.job = job;
  identity.generation = generation;
  identity.rank = rank;
}

void SetLogStep(int64_t step) {
  current_step.store(step, std::memory_order_relaxed);
}

void LogLine(std::string_view level, std::string_view event, const LogFields& fields, std::string_view message) {
  std::string line =
      TheIdentity().json ? JsonLine(level, event, fields, message) : TextLine(level, event, fields, message);
  line.push_back('\n');
  if (write(STDERR_FILENO, line.data(), line.size()) < 0)
    return;  // a log that cannot be written is no reason to stop training
}

}  // namespace athanor
