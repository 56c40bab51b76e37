#include "athanor/runner/watch/profiler.h"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

namespace kineto = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ProfilerState;

torch::profiler::impl::ProfilerConfig KinetoConfig(const ProfilingConfig& config) {
  return torch::profiler::impl::ProfilerConfig(ProfilerState::KINETO, config.record_shapes, config.profile_memory,
                                               config.with_stack, config.with_flops);
}

std::set<ActivityType> Activities(bool cuda) {
  std::set<ActivityType> activities = {ActivityType::CPU};
  if (cuda) activities.insert(ActivityType::CUDA);
  return activities;
}

}  // namespace

ProfilerPhase PhaseOf(const ProfilingConfig& config, int64_t index) {
  const int64_t cycle = config.wait + config.warmup + config.active;
  if (!config.enabled || (config.repeat.has_value() && index >= *config.repeat * cycle)) return ProfilerPhase::kOff;
  const int64_t place = index % cycle;
  if (place < config.wait) return ProfilerPhase::kOff;
  return place < config.wait + config.warmup ? ProfilerPhase::kWarmup : ProfilerPhase::kActive;
}

Profiler::Profiler(const ProfilingConfig& config, std::string folder, bool cuda)
    : config_(config), folder_(std::move(folder)), cuda_(cuda) {}

Profiler::~Profiler() {
  Close();
}

absl::StatusOr<std::unique_ptr<Profiler>> Profiler::Create(const ProfilingConfig& config, const std::string& folder,
                                                           bool cuda) {
  RETURN_IF_ERROR(EnsureDir(folder));
  return std::unique_ptr<Profiler>(new Profiler(config, folder, cuda));
}

void Profiler::Step(int64_t step) {
  if (!error_.ok()) return;
  const int64_t cycle = config_.wait + config_.warmup + config_.active;
  const ProfilerPhase next = PhaseOf(config_, index_);
  // Windows that touch are two windows.
  const bool new_window = next == ProfilerPhase::kActive && index_ % cycle == config_.wait + config_.warmup;
  ++index_;
  if (next == phase_ && !new_window) return;
  Enter(next, step);
}

void Profiler::Enter(ProfilerPhase phase, int64_t step) {
  const absl::Status done = RunTorch("profiling", [&] {
    if (phase_ == ProfilerPhase::kActive) Write();
    if (phase != ProfilerPhase::kOff && !prepared_) {
      kineto::prepareProfiler(KinetoConfig(config_), Activities(cuda_));
      prepared_ = true;
    }
    if (phase == ProfilerPhase::kActive) {
      kineto::enableProfiler(KinetoConfig(config_), Activities(cuda_));
      window_began_ = step;
    }
  });
  phase_ = phase;
  if (done.ok()) return;
  if (error_.ok()) error_ = done;
  phase_ = ProfilerPhase::kOff;
}

void Profiler::Write() {
  const std::unique_ptr<kineto::ProfilerResult> result = kineto::disableProfiler();
  prepared_ = false;
  const std::string path = absl::StrCat(folder_, "/trace-", absl::StrFormat("%012d", window_began_), ".json");
  result->save(path);
  if (std::filesystem::exists(path)) {
    traces_.push_back(path);
  } else if (error_.ok()) {
    error_ = absl::UnavailableError(absl::StrCat("profiling: could not write ", path));
  }
}

void Profiler::Close() {
  if (phase_ != ProfilerPhase::kOff) Enter(ProfilerPhase::kOff, 0);
}

}  // namespace athanor
