#include "worker/trainer/control_hooks.h"

#include <pthread.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "athanor/base/failpoint.h"
#include "worker/trainer/log_line.h"

namespace athanor {
namespace {

constexpr absl::Duration kReportFastest = absl::Milliseconds(10), kReportTimeout = absl::Seconds(1);
// Without news the agent still hears that this process lives and where it stands.
constexpr absl::Duration kRepeatAfter = absl::Seconds(1);

std::string Millis(double seconds) {
  return absl::StrFormat("%.3f", seconds * 1000);
}

// Step … step=120 of=6000 epoch=5.45 loss=0.0312 samples_per_second=31045 step_ms=1.012 data_ms=0.021 … memory_mb=212
// eta=6s msg="lr:0.001 train.accuracy:0.99"
void LogProgress(std::string_view event, const ProgressReport& report) {
  std::string metrics;
  for (const auto& [name, value] : report.metrics)
    absl::StrAppend(&metrics, metrics.empty() ? "" : " ", name, ":", value);
  LogLine("INFO", event,
          {{"step", absl::StrCat(report.step)},
           {"of", absl::StrCat(report.total_steps)},
           {"epoch", absl::StrFormat("%.2f", report.epoch)},
           {"loss", absl::StrFormat("%.6g", report.loss)},
           {"samples_per_second", absl::StrFormat("%.0f", report.samples_per_second)},
           {"step_ms", Millis(report.step_seconds)},
           {"data_ms", Millis(report.times.data)},
           {"forward_ms", Millis(report.times.forward)},
           {"backward_ms", Millis(report.times.backward)},
           {"optimizer_ms", Millis(report.times.optimizer)},
           {"wait_ms", Millis(report.times.wait)},
           {"memory_mb", absl::StrCat((report.memory_bytes + report.device_bytes) >> 20)},
           {"eta", absl::StrFormat("%.0fs", report.eta_seconds)}},
          metrics);
}

}  // namespace

ControlHooks::ControlHooks(AgentLink* link, ControlOptions options) : link_(link), options_(std::move(options)) {
  latest_.loss = 0;
  thread_ = std::thread([this] { Run(); });
  link_->Listen([this](const StopRequest& request) {
    LogLine("INFO", "StopRequested", {{"save", request.save ? "true" : "false"}}, request.reason);
    if (!request.save) options_.on_orphaned(absl::StrCat("told to leave at once: ", request.reason));
    std::lock_guard lock(mutex_);
    stop_reason_ = request.reason;
    stop_requested_.store(true, std::memory_order_relaxed);
  });
}

ControlHooks::~ControlHooks() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void ControlHooks::OnProgress(const ProgressReport& progress) {
  bool stepped = false, read_out = false, evaluated = false;
  {
    std::lock_guard lock(mutex_);
    stepped = progress.step > latest_.step;
    // The runner refreshes the loss at its read-outs only.
    read_out = progress.loss != latest_.loss && !std::isnan(progress.loss);
    evaluated = latest_.phase == RunnerPhase::kEvaluating && progress.phase != RunnerPhase::kEvaluating;
    changed_ = true;
    if (progress.phase != latest_.phase) {
      urgent_ = true;
      wake_.notify_all();
    }
    latest_ = progress;
  }
  if (stepped) SetLogStep(progress.step);
  if (read_out || evaluated) LogProgress(evaluated ? "Evaluated" : "Step", progress);
  if (stepped) ATHANOR_FAILPOINT("trainer.step");
}

void ControlHooks::OnPhaseProgress(const PhaseProgress& progress) {
  // From several threads: the greatest of each is the newest.
  const auto raise = [](std::atomic<int64_t>& to, int64_t value) {
    int64_t now = to.load(std::memory_order_relaxed);
    while (now < value && !to.compare_exchange_weak(now, value, std::memory_order_relaxed)) {
    }
  };
  raise(done_, progress.done);
  raise(exchanges_, progress.exchanges);
}

void ControlHooks::OnNote(const std::string& text) {
  LogLine("INFO", "Note", {}, text);
}

bool ControlHooks::StopRequested() const {
  return stop_requested_.load(std::memory_order_relaxed) || (options_.signalled && options_.signalled());
}

void ControlHooks::EnterPhase(RunnerPhase phase) {
  std::lock_guard lock(mutex_);
  latest_.phase = phase;
  changed_ = urgent_ = true;
  wake_.notify_all();
}

ProgressReport ControlHooks::latest() const {
  std::lock_guard lock(mutex_);
  return latest_;
}

std::string ControlHooks::stop_reason() const {
  std::lock_guard lock(mutex_);
  return stop_reason_;
}

void ControlHooks::Run() {
  pthread_setname_np(pthread_self(), "athanor-control");
  absl::Time heard = absl::Now(), sent = absl::InfinitePast();
  PhaseProgress told;
  std::unique_lock lock(mutex_);
  while (!closing_) {
    const PhaseProgress now{done_.load(std::memory_order_relaxed), exchanges_.load(std::memory_order_relaxed)};
    const bool advanced = now.done != told.done || now.exchanges != told.exchanges;
    if (urgent_ || changed_ || advanced || absl::Now() - sent >= kRepeatAfter) {
      urgent_ = changed_ = false;
      ProgressReport report = latest_;
      report.phase_progress = told = now;
      lock.unlock();
      sent = absl::Now();
      const absl::Duration limit =
          options_.ends_with_lease ? std::clamp(link_->LeaseLeft(), kReportFastest, kReportTimeout) : kReportTimeout;
      const absl::Status status = link_->Report(report, ToString(report.phase), sent + limit);
      if (status.ok()) heard = absl::Now();
      if (absl::IsFailedPrecondition(status)) options_.on_orphaned(std::string(status.message()));
      if (absl::Now() - heard > options_.agent_lost_after) {
        options_.on_orphaned(absl::StrCat("no answer from the agent for ",
                                          absl::FormatDuration(options_.agent_lost_after), ": ", status.message()));
      }
      lock.lock();
    }
    if (options_.ends_with_lease && link_->LeaseLeft() <= absl::ZeroDuration())
      options_.on_orphaned("fencing: strict: the lease of this rank's agent is over");
    wake_.wait_for(lock, absl::ToChronoNanoseconds(options_.interval), [this] { return closing_ || urgent_; });
  }
}

}  // namespace athanor
