#include "worker/trainer/log_line.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "athanor/base/utf8_text.h"

namespace athanor {
namespace {

constexpr size_t kMaxMessageBytes = 8192;

std::string& Identity() {
  static std::string& identity = *new std::string;
  return identity;
}

std::string Value(std::string_view text) {
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return c > ' ' && c < 0x7f && c != '"' && c != '\\' && c != '=';
  });
  return plain ? std::string(text) : absl::StrCat("\"", absl::Utf8SafeCEscape(std::string(text)), "\"");
}

}  // namespace

void SetLogIdentity(const std::string& job, int generation, int rank) {
  Identity() = absl::StrCat(" job=", Value(job), " generation=", generation, " rank=", rank);
}

void LogLine(std::string_view level, std::string_view event,
             std::initializer_list<std::pair<std::string_view, std::string>> fields, std::string_view message) {
  std::string line = absl::StrCat(absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone()), " ",
                                  std::string(level), " athanor-trainer ", std::string(event), Identity());
  for (const auto& [name, value] : fields) absl::StrAppend(&line, " ", std::string(name), "=", Value(value));
  if (!message.empty()) absl::StrAppend(&line, " msg=", Value(CutUtf8(message, kMaxMessageBytes)));
  line.push_back('\n');
  if (write(STDERR_FILENO, line.data(), line.size()) < 0)
    return;  // a log that cannot be written is no reason to stop training
}

}  // namespace athanor
