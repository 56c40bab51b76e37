// Where a run stands, for all who watch it: hooks, heartbeat file, watchdog. Owns the report and what it is made from.
//
//   RunProgress progress(hooks);
//   progress.AddStep(step.times, seconds, step.samples);
//   progress.Publish(RunnerPhase::kTraining, state, fraction);
//   progress.Advance("evaluation", 1);                       // from any thread: something was finished, no hang
//
// One training thread, but for Advance().
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "athanor/runner/runner_hooks.h"
#include "athanor/runner/state/runner_state.h"
#include "athanor/runner/watch/heartbeat.h"
#include "athanor/runner/watch/telemetry.h"
#include "athanor/runner/watch/watchdog.h"

namespace athanor {

class RunProgress {
 public:
  static constexpr size_t kMaxEvents = 8;
  // `hooks` may be null; it outlives this object.
  explicit RunProgress(RunnerHooks* hooks);
  ~RunProgress();

  ProgressReport& report() { return report_; }
  const ProgressReport& report() const { return report_; }

  // From here on a hang is called out; see Watchdog. Until StopWatching().
  void Watch(std::unique_ptr<Watchdog> watchdog);
  void StopWatching();
  void Beat(std::unique_ptr<Heartbeat> heartbeat) { heartbeat_ = std::move(heartbeat); }
  void Leaving(const char* why);  // into the heartbeat
  void StopBeating() { heartbeat_.reset(); }

  // A finished update: its parts, its whole, the samples of this rank.
  void AddStep(const StepTimes& times, double seconds, int64_t samples) { telemetry_.Add(times, seconds, samples); }
  void FinishStep(int64_t step);  // no hang so far
  // Kept in the reports to come; after kMaxEvents no more are.
  void AddEvent(const std::string& text);
  double step_seconds() const { return telemetry_.step_seconds(); }
  double samples_per_second() const { return telemetry_.samples_per_second(); }

  // `units` of `doing` (a literal) are done: no hang. Any thread.
  void Advance(const char* doing, int64_t units);
  // After each batch of an evaluation.
  void MarkEvaluated();
  // This rank has done its part and now waits for the others.
  void MarkExchange();

  // `epoch_fraction`: of the pass under way.
  const ProgressReport& Refresh(const TrainState& state, double epoch_fraction);
  // Refreshes, and tells hooks and heartbeat.
  void Publish(RunnerPhase phase, const TrainState& state, double epoch_fraction);

 private:
  RunnerHooks* const hooks_;
  std::atomic<int64_t> advanced_{0}, exchanges_{0};
  std::unique_ptr<Watchdog> watchdog_;
  std::atomic<Watchdog*> watching_{nullptr};
  std::unique_ptr<Heartbeat> heartbeat_;
  Telemetry telemetry_;
  ProgressReport report_;
};

}  // namespace athanor
