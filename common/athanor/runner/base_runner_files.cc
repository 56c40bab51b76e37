// What a BaseRunner has on disk besides checkpoints.
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/status_macros.h"
#include "athanor/runner/base_runner.h"
#include "athanor/tensor/torch_status.h"

namespace athanor {

absl::Status BaseRunner::OpenWorkspace() {
  const int rank = options_.topology.rank(), world_size = options_.topology.world_size();
  if (options_.workspace.has_value()) {
    const Workspace& workspace = *options_.workspace;
    const bool alone = options_.committer == nullptr;
    if (alone) {
      own_committer_ = std::make_unique<LocalCommitter>(workspace.checkpoint_dir, rank, world_size);
      options_.committer = own_committer_.get();
      options_.checkpoint_root = workspace.checkpoint_dir;
    }
    if (options_.topology.is_main()) {
      absl::StatusOr<std::unique_ptr<RunRecorder>> recorder = RunRecorder::Open(config_, workspace, evaluate_splits_);
      // A folder that nobody chose in vain is a mistake; under a service training goes on without these files.
      if (!recorder.ok() && alone) return WithFailureKind(recorder.status(), FailureKind::kInvalid);
      if (recorder.ok()) recorder_ = *std::move(recorder);
      if (!recorder.ok()) notes_.push_back(absl::StrCat("no run files: ", recorder.status().message()));
    }
    if (config_.profiling.enabled) {
      absl::StatusOr<std::unique_ptr<Profiler>> profiler =
          Profiler::Create(config_.profiling,
                           absl::StrCat(workspace.dir, "/", config_.profiling.trace_dir, "/", workspace.timestamp, "/",
                                        absl::StrFormat("rank-%05d", rank)),
                           device().is_cuda());
      if (profiler.ok()) profiler_ = *std::move(profiler);
      if (!profiler.ok()) notes_.push_back(absl::StrCat("no traces: ", profiler.status().message()));
    }
    if (config_.heartbeat.enabled) {
      nlohmann::json identity = IdentityOf(workspace);
      identity["rank"] = rank;
      identity["world_size"] = world_size;
      HeartbeatOptions options;
      options.path =
          absl::StrCat(workspace.dir, "/", config_.heartbeat.dir_name, "/", absl::StrFormat("rank-%05d.json", rank));
      options.interval = absl::Seconds(config_.heartbeat.interval_seconds);
      heartbeat_ = std::make_unique<Heartbeat>(std::move(options), std::move(identity));
    }
  }
  if (!options_.resume_candidates.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(options_.resume_candidates, ConfiguredCandidates());
  return absl::OkStatus();
}

void BaseRunner::CloseWorkspace(const absl::StatusOr<RunResult>& result) {
  if (profiler_ != nullptr) profiler_->Close();
  if (recorder_ != nullptr) {
    const bool finished = result.ok() && result->outcome == RunOutcome::kFinished;
    const char* outcome = !result.ok() ? "failed" : finished ? "finished" : "preempted";
    recorder_->Finish(outcome, Refreshed(), result.ok() ? "" : result.status().message());
  }
  heartbeat_.reset();
}

}  // namespace athanor
