#include "athanor/runner/record/run_progress.h"

#include <cmath>
#include <utility>

namespace athanor {

RunProgress::RunProgress(RunnerHooks* hooks) : hooks_(hooks) {
  report_.loss = std::nan("");
}

RunProgress::~RunProgress() = default;

void RunProgress::Watch(std::unique_ptr<Watchdog> watchdog) {
  watchdog_ = std::move(watchdog);
  watching_.store(watchdog_.get(), std::memory_order_release);
}

void RunProgress::StopWatching() {
  if (watchdog_ != nullptr) watchdog_->Stop();
}

void RunProgress::Leaving(const char* why) {
  if (heartbeat_ != nullptr) heartbeat_->Terminating(why);
}

void RunProgress::FinishStep(int64_t step) {
  if (watchdog_ != nullptr) watchdog_->Feed("step", step);
}

void RunProgress::AddEvent(const std::string& text) {
  if (report_.events.size() < kMaxEvents) report_.events.push_back(text);
}

void RunProgress::Advance(const char* doing, int64_t units) {
  const int64_t done = advanced_.fetch_add(units, std::memory_order_relaxed) + units;
  if (Watchdog* watchdog = watching_.load(std::memory_order_acquire)) watchdog->Feed(doing);
  if (hooks_ != nullptr) hooks_->OnPhaseProgress({done, exchanges_.load(std::memory_order_relaxed)});
}

void RunProgress::MarkEvaluated() {
  Advance("evaluation", 1);
  ++report_.evaluated_batches;
  if (heartbeat_ != nullptr) heartbeat_->Update(report_);
}

void RunProgress::MarkExchange() {
  const int64_t exchanges = exchanges_.fetch_add(1, std::memory_order_relaxed) + 1;
  if (hooks_ != nullptr) hooks_->OnPhaseProgress({advanced_.load(std::memory_order_relaxed), exchanges});
}

const ProgressReport& RunProgress::Refresh(const TrainState& train, double epoch_fraction) {
  report_.step = train.step;
  report_.samples = train.samples;
  report_.skipped_updates = train.skipped_updates;
  report_.micro_step = train.micro_step;
  report_.epoch = static_cast<double>(train.epoch) + epoch_fraction;
  report_.step_seconds = telemetry_.step_seconds();
  report_.samples_per_second = telemetry_.samples_per_second();
  report_.times = telemetry_.times();
  report_.phase_progress = {advanced_.load(std::memory_order_relaxed), exchanges_.load(std::memory_order_relaxed)};
  const int64_t left = report_.total_steps - train.step;
  report_.eta_seconds = left >= 0 && report_.step_seconds > 0 ? static_cast<double>(left) * report_.step_seconds : -1;
  return report_;
}

void RunProgress::Publish(RunnerPhase phase, const TrainState& state, double epoch_fraction) {
  report_.phase = phase;
  Refresh(state, epoch_fraction);
  if (heartbeat_ != nullptr) heartbeat_->Update(report_);
  if (hooks_ != nullptr) hooks_->OnProgress(report_);
}

}  // namespace athanor
