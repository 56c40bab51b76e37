// What every part of a run is handed: its configuration, the ranks, and who hears of it. Parts do not know each other.
//
// One training thread, but for RunProgress::Advance().
#pragma once

#include <torch/torch.h>

#include <functional>

#include "absl/status/status.h"
#include "athanor/config/runner_config.h"
#include "athanor/parallel/membership.h"
#include "athanor/runner/record/run_notes.h"
#include "athanor/runner/record/run_progress.h"
#include "athanor/runner/runner_hooks.h"

namespace athanor {

struct RunContext {
  RunContext(RunnerConfig run, const Membership& ranks, const torch::Device& place, RunnerHooks* listener);

  RunnerConfig config;
  Membership members;
  const torch::Device device;
  RunnerHooks* const hooks;  // null: nobody watches
  RunProgress progress;
  RunNotes notes;

  // What this rank does alone and can fail, agreed with the others before the next collective
  // (athanor/parallel/agree_on_status.h); an exception is an error. Every rank calls it.
  absl::Status Together(const char* what, const std::function<absl::Status()>& alone) const;
  // The same where asking the others would cost too much: where it fails, the group is left.
  absl::Status Alone(const char* what, const std::function<void()>& work) const;
  // The others' collectives fail at once, and not at their timeout.
  void LeaveGroup() const;
};

}  // namespace athanor
