// What a run is given besides its configuration, and what it gives back. Plain values.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "athanor/checkpoint/committer.h"
#include "athanor/checkpoint/file_checkpoint_manager.h"
#include "athanor/parallel/membership.h"
#include "athanor/runner/record/workspace.h"
#include "athanor/runner/runner_hooks.h"
#include "athanor/runner/watch/watchdog.h"

namespace athanor {

enum class RunOutcome {
  kFinished,   // all steps or epochs done, or stopped early by patience
  kPreempted,  // left as asked, after a checkpoint at a step that all ranks agreed on
};

struct RunResult {
  RunOutcome outcome = RunOutcome::kFinished;
  int64_t step = 0;
  int64_t epoch = 0;
  std::map<std::string, double> metrics;  // last read-outs: "train.loss", "test.accuracy" …
  std::optional<double> best_score;
  int64_t best_step = -1;
  std::vector<std::string>
      notes;  // worth a line in the log: damaged checkpoints passed over, a final evaluation that failed …
};

struct BaseRunnerOptions {
  Membership members;            // the ranks that train together; default: this one alone
  RunnerHooks* hooks = nullptr;  // null: nobody watches
  // Without hooks, SIGTERM and SIGINT ask Train() to leave at a step boundary, after a checkpoint; a second one ends
  // the process (supervisor.h). Hooks decide themselves.
  bool handle_signals = true;
  // The run's folder (rank 0's counts), from ResolveWorkspace(config, now): results, log, events, heartbeats, and,
  // without a committer, the checkpoints. Unset: resolved when the configuration asks for something that lies in it
  // (NeedsWorkspace()), unless `workspace_from_config` is off; else none of these files.
  std::optional<Workspace> workspace;
  bool workspace_from_config = true;
  CheckpointCommitter* committer = nullptr;  // null: the workspace's; without a workspace no checkpoints
  std::string checkpoint_root;
  // Where the checkpoints' storage is mounted, and its id (athanor/base/storage_id.h): nothing is written while another
  // one is there. Empty: not checked.
  std::string storage_root, storage;
  // Newest first; equal on all ranks. Empty: what config.resume or config.auto_resume say.
  std::vector<ResumeCandidate> resume_candidates;
  absl::Duration hang_timeout = absl::InfiniteDuration();  // nothing finished for so long …
  Watchdog::Callback on_hang;                              // … calls this, once, on another thread
  // How long a commit may wait for those who take it while they are away: the ranks wait for each other as long at the
  // end of a run, and it is no hang (`hooks` tell).
  absl::Duration commit_patience = absl::ZeroDuration();
};

}  // namespace athanor
