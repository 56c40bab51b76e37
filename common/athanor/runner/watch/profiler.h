// Traces of windows of updates, for Perfetto and chrome://tracing: which operator ran when, on which thread.
//
//   const std::string folder = "run/profiles/20261124-100000/rank-00000";
//   ASSIGN_OR_RETURN(auto profiler, Profiler::Create(config.profiling, folder, cuda));
//   profiler->Step(step);                  // before the first update, and after each
//   profiler->Close();                     // a window under way is written
//
// Cycles of `wait` updates unwatched, `warmup` watched and thrown away, `active` recorded; `repeat` of them (unset:
// until the end), counted from the first update of this process. A window becomes <folder>/trace-<first update>.json, a
// Chrome trace; its parts are named data, forward, backward, optimizer. CUDA kernels are in it where the LibTorch has
// its CUPTI.
//
// Training never fails because of it: the first error ends the recording and is in error(). One per process at a time;
// the training thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/config/runner_config.h"

namespace athanor {

enum class ProfilerPhase { kOff, kWarmup, kActive };

// What the update `index` (0: the first) is to the profiler. Pure.
ProfilerPhase PhaseOf(const ProfilingConfig& config, int64_t index);

class Profiler {
 public:
  // Makes the folder.
  static absl::StatusOr<std::unique_ptr<Profiler>> Create(const ProfilingConfig& config, const std::string& folder,
                                                          bool cuda);
  ~Profiler();
  Profiler(const Profiler&) = delete;

  // The update number `step` of the run begins; the one before it, if any, has ended.
  void Step(int64_t step);
  void Close();

  const std::vector<std::string>& traces() const { return traces_; }  // written so far
  absl::Status error() const { return error_; }

 private:
  Profiler(const ProfilingConfig& config, std::string folder, bool cuda);
  void Enter(ProfilerPhase phase, int64_t step);
  void Write();

  const ProfilingConfig config_;
  const std::string folder_;
  const bool cuda_;
  ProfilerPhase phase_ = ProfilerPhase::kOff;
  bool prepared_ = false;
  int64_t index_ = 0;
  int64_t window_began_ = 0;  // step of the run
  std::vector<std::string> traces_;
  absl::Status error_;
};

}  // namespace athanor
