#include "client/progress.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "athanor/base/progress_bar.h"
#include "athanor/base/utf8_text.h"

namespace athanor {
namespace {

constexpr absl::Duration kPlainEvery = absl::Seconds(3);

const char* Colour(const std::string& type) {
  if (type == "RankFailed" || type == "Failed" || type == "CheckpointDamaged" || type == "CheckpointFailed")
    return "\033[31m";
  if (type == "RestartDecided" || type == "Preempted" || type == "Waiting" || type == "Suspended") return "\033[33m";
  if (type == "Recovered" || type == "Succeeded" || type == "CheckpointCommitted" || type == "CheckpointMeasured")
    return "\033[32m";
  return "\033[36m";
}

}  // namespace

std::string ProgressLine(const v1::Job& job, int width) {
  const v1::JobProgress& progress = job.progress();
  std::string line;
  if (progress.total_steps() > 0) absl::StrAppend(&line, ProgressBar(progress.step(), progress.total_steps()), " ");
  absl::StrAppend(&line, progress.step(),
                  progress.total_steps() > 0 ? absl::StrCat("/", progress.total_steps()) : " steps");
  if (progress.step() > 0 && std::isfinite(progress.loss()))
    absl::StrAppend(&line, absl::StrCat("  loss ", FormatFigure(progress.loss())));
  if (progress.samples_per_second() > 0)
    absl::StrAppend(&line, absl::StrFormat("  %.0f samples/s", progress.samples_per_second()));
  if (job.state() == v1::RUNNING && progress.total_steps() > progress.step() && progress.step_seconds() > 0) {
    absl::StrAppend(
        &line, "  eta ",
        FormatSeconds(progress.step_seconds() * static_cast<double>(progress.total_steps() - progress.step())));
  }
  absl::StrAppend(&line, "  gen ", job.generation());
  if (progress.restarts() > 0)
    absl::StrAppend(&line, " (", progress.restarts(), progress.restarts() == 1 ? " restart)" : " restarts)");
  const bool running = job.state() == v1::RUNNING && progress.ranks_size() > 0 && !progress.ranks(0).phase().empty();
  absl::StrAppend(&line, "  ", running ? progress.ranks(0).phase() : absl::AsciiStrToLower(StateName(job.state())));
  return FirstColumns(StripControlChars(line), static_cast<size_t>(width));
}

std::string EventLine(const v1::JobEvent& event, bool colours) {
  const absl::Time time = absl::FromUnixSeconds(event.time().seconds()) + absl::Nanoseconds(event.time().nanos());
  std::string where;
  if (event.generation() > 0)
    where = absl::StrCat("g", event.generation(), event.rank() >= 0 ? absl::StrCat(" r", event.rank()) : "");
  const std::string type = absl::StrFormat("%-19s", event.type());
  return absl::StrCat(absl::FormatTime("%H:%M:%E3S", time, absl::LocalTimeZone()), "  ",
                      colours ? absl::StrCat(Colour(event.type()), type, "\033[0m") : type, " ",
                      absl::StrFormat("%-6s", where), " ", StripControlChars(event.message()));
}

void ProgressDisplay::Erase() {
  if (line_open_) std::fputs("\r\033[K", stderr);
  line_open_ = false;
}

void ProgressDisplay::Update(const v1::WatchJobResponse& update) {
  if (!terminal_.stderr_is_terminal) {
    for (const v1::JobEvent& event : update.events())
      std::fprintf(stderr, "%s\n", EventLine(event, terminal_.colours).c_str());
    if (update.job().state() == v1::RUNNING && absl::Now() - last_plain_ >= kPlainEvery) {
      last_plain_ = absl::Now();
      std::fprintf(stderr, "%s\n", ProgressLine(update.job(), 200).c_str());
    }
    return;
  }
  Erase();
  for (const v1::JobEvent& event : update.events())
    std::fprintf(stderr, "%s\n", EventLine(event, terminal_.colours).c_str());
  if (!update.final()) {
    std::fputs(ProgressLine(update.job(), terminal_.width - 1).c_str(), stderr);
    line_open_ = true;
  }
  std::fflush(stderr);
}

void ProgressDisplay::Close() {
  if (line_open_) std::fputs("\n", stderr);
  line_open_ = false;
}

}  // namespace athanor
