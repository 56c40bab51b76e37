// Where the time of training steps goes: exponentially weighted means, and throughput.
//
//   Telemetry::Clock clock;
//   ...
//   times.data = clock.Lap();     // seconds since the last lap
//   telemetry.Add(times, step_seconds, samples);
//
// On a GPU these are the times of the host's calls, not of the kernels: nothing here waits for the device. Not
// thread-safe.
#pragma once

#include <chrono>
#include <cstdint>

#include "athanor/runner/runner_hooks.h"

namespace athanor {

class Telemetry {
 public:
  class Clock {
   public:
    double Lap() {
      const auto now = std::chrono::steady_clock::now();
      const double seconds = std::chrono::duration<double>(now - last_).count();
      last_ = now;
      return seconds;
    }

   private:
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
  };

  // One finished update: its parts, its whole, the samples of this rank.
  void Add(const StepTimes& times, double step_seconds, int64_t samples);

  const StepTimes& times() const { return times_; }
  double step_seconds() const { return step_seconds_; }
  double samples_per_second() const { return step_seconds_ > 0 ? samples_ / step_seconds_ : 0; }

 private:
  static constexpr double kShare = 0.05;  // of a new step in the mean
  bool first_ = true;
  StepTimes times_;
  double step_seconds_ = 0;
  double samples_ = 0;
};

}  // namespace athanor
