// What a run has on disk besides checkpoints: its folder, and in it the log, results, events, traces, heartbeats. One
// folder, one time and one attempt for all ranks: those of the main process.
//
//   RunFiles files(&context, {.workspace = options.workspace});
//   RETURN_IF_ERROR(files.Find());                                         // collective
//   RETURN_IF_ERROR(context.Together("the run's files", [&] { return files.Open(splits, names); }));
//
// Not thread-safe; the training thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "athanor/checkpoint/local_committer.h"
#include "athanor/runner/record/run_recorder.h"
#include "athanor/runner/record/workspace.h"
#include "athanor/runner/run_context.h"
#include "athanor/runner/watch/profiler.h"

namespace athanor {

struct RunFilesOptions {
  std::optional<Workspace> workspace;
  bool workspace_from_config = true;
  CheckpointCommitter* committer = nullptr;  // null: the workspace's own
  std::string checkpoint_root;
};

class RunFiles {
 public:
  // `context` outlives this object.
  RunFiles(RunContext* context, RunFilesOptions options);
  ~RunFiles();

  // Resolves the folder where the configuration asks for one, and shares it among the ranks.
  absl::Status Find();
  // Opens this rank's files. The notes go into the log from here on. `evaluated`, `trained`: names of splits.
  absl::Status Open(const std::vector<std::string>& evaluated, const std::vector<std::string>& trained);
  // `outcome`: "finished", "preempted" or "failed", with its error. The report is refreshed.
  void Close(const char* outcome, const std::string& error, const ProgressReport& report);

  const std::optional<Workspace>& workspace() const { return options_.workspace; }
  CheckpointCommitter* committer() const { return options_.committer; }  // null: no checkpoints
  const std::string& checkpoint_root() const { return options_.checkpoint_root; }
  RunRecorder* recorder() const { return recorder_.get(); }  // of the main process of a run with a folder; else null
  Profiler* profiler() const { return profiler_.get(); }     // null: none
  // What went wrong with the files, each a line.
  std::vector<std::string> Problems() const;

 private:
  absl::Status FindHere();
  absl::Status Share();
  absl::Status OpenRecorder(const std::vector<std::string>& evaluated, const std::vector<std::string>& trained);
  void OpenProfiler();
  void OpenHeartbeat();

  RunContext* const context_;
  RunFilesOptions options_;
  const bool alone_;     // without a committer of somebody else
  std::string attempt_;  // of this start of the run, on all ranks: for votes
  std::unique_ptr<LocalCommitter> own_committer_;
  std::unique_ptr<RunRecorder> recorder_;
  std::unique_ptr<Profiler> profiler_;
};

}  // namespace athanor
