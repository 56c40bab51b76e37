// How a program around the library sees a training run and speaks to it. The service's trainer implements it over its
// agent's socket; a library user may implement any part. The default does nothing.
#pragma once

#include <boost/describe.hpp>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace athanor {

enum class RunnerPhase { kStarting, kLoading, kJoining, kRestoring, kTraining, kEvaluating, kSaving, kFinishing };
const char* ToString(RunnerPhase phase);  // "starting" …

struct StepTimes {  // seconds, exponentially weighted means per optimizer step
  double data = 0, forward = 0, backward = 0, optimizer = 0, wait = 0;
};

// What advances within a phase, of this process. Long evaluations, restores and writes are told from hangs by it.
struct PhaseProgress {
  int64_t done = 0;  // grows with every batch evaluated and with the bytes read and written
  int64_t exchanges =
      0;  // times that this rank came to an exchange with the others: in a hang, the fewest are waited for
};

struct ProgressReport {
  RunnerPhase phase = RunnerPhase::kStarting;
  int64_t step = 0;
  int64_t total_steps = 0;                // 0: unknown
  int64_t micro_step = 0;                 // micro-batches, aligned up to whole windows
  int64_t evaluated_batches = 0;          // of this process, over all evaluations
  int64_t restarts = 0;                   // resumes that this run has gone through
  double epoch = 0;                       // fractional
  int64_t samples = 0;                    // of this rank, cumulative over the job
  double loss = 0;                        // mean since the last read-out; NaN when none
  std::map<std::string, double> metrics;  // "train.loss", "test.accuracy", "lr", "grad_norm" …
  double step_seconds = 0;                // exponentially weighted mean
  double samples_per_second = 0;          // of this rank
  double total_samples_per_second = 0;    // of all ranks, at the last read-out
  StepTimes times;
  double checkpoint_stall_seconds = 0;
  int64_t checkpoint_failures = 0, checkpoint_skipped = 0;
  std::string checkpoint_error;
  int64_t resumed_from_step = -1;
  int64_t nonfinite_losses = 0;
  int64_t skipped_updates = 0;  // left out because of gradients that were not finite
  double evaluate_seconds = 0;
  PhaseProgress phase_progress;
  std::vector<std::string> events;  // what happened, once each, oldest first: "stopped early after …"; main process
  double eta_seconds = -1;          // of the steps left, at the present pace, evaluations not counted; -1: unknown
  // Refreshed at read-outs: of the process, and of the device's allocator (0 on the CPU). Peaks since the start.
  int64_t memory_bytes = 0, memory_bytes_peak = 0;
  int64_t device_bytes = 0, device_bytes_peak = 0, device_reserved_bytes_peak = 0;
};

// What athanor.v1.RankProgress has under the same name travels to the coordinator: a new figure takes a member here and
// a field there.
BOOST_DESCRIBE_STRUCT(ProgressReport, (),
                      (step, total_steps, epoch, samples, loss, metrics, step_seconds, samples_per_second,
                       checkpoint_stall_seconds, checkpoint_failures, checkpoint_skipped, checkpoint_error,
                       resumed_from_step, nonfinite_losses, evaluate_seconds))

class RunnerHooks {
 public:
  virtual ~RunnerHooks() = default;
  // After each optimizer step and at each change of phase, on the training thread. Must not block or allocate much:
  // `loss` and `metrics` are refreshed only at read-outs (every log interval), counters each time.
  virtual void OnProgress(const ProgressReport& /*progress*/) {}
  // Between two calls of OnProgress(), as often as something is done. Any thread; must cost next to nothing.
  virtual void OnPhaseProgress(const PhaseProgress& /*progress*/) {}
  // A line about this run that people look for: "resumed from step 120 of PATH", "loaded 62 tensors from PATH",
  // "stopped early after …". On the training thread of the main process.
  virtual void OnNote(const std::string& /*text*/) {}
  // This rank's vote to leave at the next agreed step boundary (suspend, preemption, SIGTERM). Cheap; any thread.
  virtual bool StopRequested() const { return false; }
  // Whether those who take this run's commits are away for now: waiting for them is no hang. Cheap; any thread.
  virtual bool ServiceIsAway() const { return false; }
};

}  // namespace athanor
