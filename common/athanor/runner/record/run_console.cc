#include "athanor/runner/record/run_console.h"

#include <unistd.h>

#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/progress_bar.h"

namespace athanor {
namespace {

const char* Colour(absl::string_view level) {
  if (level == "ERROR") return "\033[31m";
  if (level == "WARNING") return "\033[33m";
  return "";
}

}  // namespace

ConsoleOptions RunConsole::Stderr() {
  const char* term = std::getenv("TERM");
  const bool terminal = isatty(STDERR_FILENO) == 1;
  const bool dumb = term != nullptr && absl::string_view(term) == "dumb";
  return {
      .stream = stderr, .is_terminal = terminal, .colours = terminal && !dumb && std::getenv("NO_COLOR") == nullptr};
}

RunConsole::~RunConsole() {
  if (open_) std::fputs("\n", options_.stream);
}

void RunConsole::Erase() {
  if (open_) std::fputs("\r\033[K", options_.stream);
  open_ = false;
}

void RunConsole::Line(absl::string_view level, absl::string_view line) {
  Erase();
  const char* colour = options_.colours ? Colour(level) : "";
  const std::string text = absl::StrCat(colour, line, *colour == '\0' ? "" : "\033[0m", "\n");
  std::fwrite(text.data(), 1, text.size(), options_.stream);
  std::fflush(options_.stream);
}

void RunConsole::Progress(const ProgressReport& progress) {
  if (!options_.is_terminal) return;
  Erase();
  std::fputs(ProgressText(progress).c_str(), options_.stream);
  std::fflush(options_.stream);
  open_ = true;
}

std::string DurationText(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 60) return absl::StrCat(whole, " s");
  if (whole < 3600) return absl::StrFormat("%dm%02ds", whole / 60, whole % 60);
  if (whole < 86400) return absl::StrFormat("%dh%02dm", whole / 3600, whole % 3600 / 60);
  return absl::StrFormat("%dd%02dh", whole / 86400, whole % 86400 / 3600);
}

std::string ProgressText(const ProgressReport& progress) {
  std::string text;
  if (progress.total_steps > 0) {
    absl::StrAppendFormat(&text, "%s %d/%d", ProgressBar(progress.step, progress.total_steps), progress.step,
                          progress.total_steps);
  } else {
    absl::StrAppend(&text, progress.step, " steps");
  }
  if (std::isfinite(progress.loss)) absl::StrAppendFormat(&text, "  loss %.4g", progress.loss);
  if (progress.total_samples_per_second > 0)
    absl::StrAppendFormat(&text, "  %.0f samples/s", progress.total_samples_per_second);
  if (progress.eta_seconds >= 0) absl::StrAppend(&text, "  eta ", DurationText(progress.eta_seconds));
  return text;
}

}  // namespace athanor
