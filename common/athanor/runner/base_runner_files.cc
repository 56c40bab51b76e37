// What a BaseRunner has on disk besides checkpoints.
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/status_macros.h"
#include "athanor/runner/base_runner.h"
#include "athanor/torch/status.h"

namespace athanor {

// One folder, one time and one attempt for all ranks: those of the main process. Clocks and checkouts may differ.
absl::Status BaseRunner::ShareWorkspace() {
  if (options_.process_group == nullptr) return absl::OkStatus();
  const bool main = options_.topology.is_main(), has_folder = options_.workspace.has_value();
  std::string text;
  if (main && has_folder) {
    const Workspace& mine = *options_.workspace;
    std::random_device device;
    const std::string attempt = absl::StrFormat("%08x%08x", device(), device());
    text = nlohmann::json({mine.dir, mine.id, mine.timestamp, mine.checkpoint_dir, attempt})
               .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
  ASSIGN_OR_RETURN(const Agreement agreed,
                   options_.process_group->AllAgree({static_cast<int64_t>(text.size()), has_folder ? 1 : 0}));
  if (agreed.min[1] != agreed.max[1]) {
    return WithFailureKind(absl::InvalidArgumentError("runner: some ranks were given a run's folder, others none"),
                           FailureKind::kInvalid);
  }
  if (!has_folder) return absl::OkStatus();
  std::vector<double> bytes(static_cast<size_t>(agreed.max[0]));
  for (size_t i = 0; main && i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(text[i]);
  ASSIGN_OR_RETURN(bytes, options_.process_group->AllReduceSum(bytes));
  text.assign(bytes.begin(), bytes.end());
  const nlohmann::json shared = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!shared.is_array() || shared.size() != 5) return absl::InternalError("the ranks could not agree on a folder");
  Workspace& workspace = *options_.workspace;
  workspace.dir = shared[0].get<std::string>();
  workspace.id = shared[1].get<std::string>();
  workspace.timestamp = shared[2].get<std::string>();
  workspace.checkpoint_dir = shared[3].get<std::string>();
  attempt_ = shared[4].get<std::string>();
  return absl::OkStatus();
}

absl::Status BaseRunner::OpenWorkspace() {
  RETURN_IF_ERROR(Together("the run's folder", [this] { return FindFolder(); }));
  RETURN_IF_ERROR(ShareWorkspace());
  return Together("the run's files", [this]() -> absl::Status {
    RETURN_IF_ERROR(OpenFiles());
    if (options_.resume_candidates.empty()) {
      ASSIGN_OR_RETURN(options_.resume_candidates, ConfiguredCandidates());
    }
    return CheckSplits();
  });
}

absl::Status BaseRunner::FindFolder() {
  const bool kept_elsewhere = options_.committer != nullptr || !options_.checkpoint_root.empty();
  if (options_.workspace.has_value() || !options_.workspace_from_config || kept_elsewhere || !NeedsWorkspace(config_))
    return absl::OkStatus();
  // Other ranks take rank 0's result.
  const char* code_folder = options_.topology.is_main() ? "." : "";
  absl::StatusOr<Workspace> workspace = ResolveWorkspace(config_, absl::Now(), code_folder);
  if (!workspace.ok()) return WithFailureKind(workspace.status(), FailureKind::kInvalid);
  options_.workspace = *std::move(workspace);
  return absl::OkStatus();
}

absl::Status BaseRunner::OpenFiles() {
  if (!options_.workspace.has_value()) return absl::OkStatus();
  const Workspace& workspace = *options_.workspace;
  const bool alone = options_.committer == nullptr;
  if (alone) {
    own_committer_ =
        std::make_unique<LocalCommitter>(workspace.checkpoint_dir, options_.topology.rank(),
                                         options_.topology.world_size(), LocalCommitter::kPatience, attempt_);
    options_.committer = own_committer_.get();
    options_.checkpoint_root = workspace.checkpoint_dir;
  }
  if (options_.topology.is_main()) {
    absl::StatusOr<std::unique_ptr<RunRecorder>> recorder = RunRecorder::Open(config_, workspace, evaluate_splits_);
    // A folder that nobody chose in vain is a mistake; under a service training goes on without these files.
    if (!recorder.ok() && alone) return WithFailureKind(recorder.status(), FailureKind::kInvalid);
    if (recorder.ok()) {
      recorder_ = *std::move(recorder);
      for (const std::string& notice : notices_) recorder_->Note("WARNING", notice);
      for (const std::string& note : notes_) recorder_->Note("WARNING", note);
    }
    if (!recorder.ok()) Note(absl::StrCat("no run files: ", recorder.status().message()));
  }
  if (config_.profiling.enabled) OpenProfiler(workspace);
  if (config_.heartbeat.enabled) OpenHeartbeat(workspace);
  return absl::OkStatus();
}

void BaseRunner::OpenProfiler(const Workspace& workspace) {
  const std::string rank = absl::StrFormat("rank-%05d", options_.topology.rank());
  absl::StatusOr<std::unique_ptr<Profiler>> profiler = Profiler::Create(
      config_.profiling,
      absl::StrCat(workspace.dir, "/", config_.profiling.trace_dir, "/", workspace.timestamp, "/", rank),
      device().is_cuda());
  if (profiler.ok()) profiler_ = *std::move(profiler);
  if (!profiler.ok()) Note(absl::StrCat("no traces: ", profiler.status().message()));
}

void BaseRunner::OpenHeartbeat(const Workspace& workspace) {
  const int rank = options_.topology.rank();
  nlohmann::json identity = IdentityOf(workspace);
  identity["rank"] = rank;
  identity["local_rank"] = options_.topology.local_rank();
  identity["world_size"] = options_.topology.world_size();
  HeartbeatOptions options;
  options.path =
      absl::StrCat(workspace.dir, "/", config_.heartbeat.dir_name, "/", absl::StrFormat("rank-%05d.json", rank));
  options.interval = absl::Seconds(config_.heartbeat.interval_seconds);
  heartbeat_ = std::make_unique<Heartbeat>(std::move(options), std::move(identity));
}

void BaseRunner::CloseWorkspace(const absl::StatusOr<RunResult>& result) {
  if (profiler_ != nullptr) profiler_->Close();
  RefreshCheckpointStats();
  if (recorder_ != nullptr) {
    const bool finished = result.ok() && result->outcome == RunOutcome::kFinished;
    const char* outcome = !result.ok() ? "failed" : finished ? "finished" : "preempted";
    recorder_->Finish(outcome, Refreshed(), result.ok() ? "" : result.status().message());
  }
  heartbeat_.reset();
}

}  // namespace athanor
