#include "athanor/runner/record/run_files.h"

#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "athanor/base/status_macros.h"
#include "athanor/parallel/process_group.h"
#include "athanor/torch/status.h"

namespace athanor {

RunFiles::RunFiles(RunContext* context, RunFilesOptions options)
    : context_(context), options_(std::move(options)), alone_(options_.committer == nullptr) {}

RunFiles::~RunFiles() = default;

absl::Status RunFiles::Find() {
  RETURN_IF_ERROR(context_->Together("the run's folder", [this] { return FindHere(); }));
  return Share();
}

absl::Status RunFiles::FindHere() {
  const bool kept_elsewhere = !alone_ || !options_.checkpoint_root.empty();
  if (options_.workspace.has_value() || !options_.workspace_from_config || kept_elsewhere ||
      !NeedsWorkspace(context_->config))
    return absl::OkStatus();
  // Other ranks take rank 0's result.
  const char* code_folder = context_->members.is_main() ? "." : "";
  absl::StatusOr<Workspace> workspace = ResolveWorkspace(context_->config, absl::Now(), code_folder);
  if (!workspace.ok()) return WithFailureKind(workspace.status(), FailureKind::kInvalid);
  options_.workspace = *std::move(workspace);
  return absl::OkStatus();
}

// Clocks and checkouts may differ from rank to rank.
absl::Status RunFiles::Share() {
  ProcessGroup* group = context_->members.group();
  if (group == nullptr) return absl::OkStatus();
  const bool main = context_->members.is_main(), has_folder = options_.workspace.has_value();
  std::string text;
  if (main && has_folder) {
    const Workspace& mine = *options_.workspace;
    std::random_device device;
    const std::string attempt = absl::StrFormat("%08x%08x", device(), device());
    text = nlohmann::json({mine.dir, mine.id, mine.timestamp, mine.checkpoint_dir, attempt})
               .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
  ASSIGN_OR_RETURN(const Agreement agreed, group->AllAgree({static_cast<int64_t>(text.size()), has_folder ? 1 : 0}));
  if (agreed.min[1] != agreed.max[1]) {
    return WithFailureKind(absl::InvalidArgumentError("runner: some ranks were given a run's folder, others none"),
                           FailureKind::kInvalid);
  }
  if (!has_folder) return absl::OkStatus();
  std::vector<double> bytes(static_cast<size_t>(agreed.max[0]));
  for (size_t i = 0; main && i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(text[i]);
  ASSIGN_OR_RETURN(bytes, group->AllReduceSum(bytes));
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

absl::Status RunFiles::Open(const std::vector<std::string>& evaluated, const std::vector<std::string>& trained) {
  if (!options_.workspace.has_value()) return absl::OkStatus();
  const Workspace& workspace = *options_.workspace;
  if (alone_) {
    own_committer_ =
        std::make_unique<LocalCommitter>(workspace.checkpoint_dir, context_->members.rank(),
                                         context_->members.world_size(), LocalCommitter::kPatience, attempt_);
    options_.committer = own_committer_.get();
    options_.checkpoint_root = workspace.checkpoint_dir;
  }
  if (context_->members.is_main()) RETURN_IF_ERROR(OpenRecorder(evaluated, trained));
  if (context_->config.profiling.enabled) OpenProfiler();
  if (context_->config.heartbeat.enabled) OpenHeartbeat();
  return absl::OkStatus();
}

absl::Status RunFiles::OpenRecorder(const std::vector<std::string>& evaluated,
                                    const std::vector<std::string>& trained) {
  absl::StatusOr<std::unique_ptr<RunRecorder>> recorder =
      RunRecorder::Open(context_->config, *options_.workspace, evaluated, trained);
  // A folder that nobody chose in vain is a mistake; under a service training goes on without these files.
  if (!recorder.ok() && alone_) return WithFailureKind(recorder.status(), FailureKind::kInvalid);
  if (!recorder.ok()) {
    context_->notes.Tell(Note::kProblem, absl::StrCat("no run files: ", recorder.status().message()));
    return absl::OkStatus();
  }
  recorder_ = *std::move(recorder);
  context_->notes.WriteTo(recorder_.get());
  return absl::OkStatus();
}

void RunFiles::OpenProfiler() {
  const Workspace& workspace = *options_.workspace;
  const std::string rank = absl::StrFormat("rank-%05d", context_->members.rank());
  const auto& profiling = context_->config.profiling;
  absl::StatusOr<std::unique_ptr<Profiler>> profiler = Profiler::Create(
      profiling, absl::StrCat(workspace.dir, "/", profiling.trace_dir, "/", workspace.timestamp, "/", rank),
      context_->device.is_cuda());
  if (profiler.ok()) profiler_ = *std::move(profiler);
  if (!profiler.ok()) context_->notes.Tell(Note::kProblem, absl::StrCat("no traces: ", profiler.status().message()));
}

void RunFiles::OpenHeartbeat() {
  const Membership& members = context_->members;
  nlohmann::json identity = IdentityOf(*options_.workspace);
  identity["rank"] = members.rank();
  identity["local_rank"] = members.local_rank();
  identity["world_size"] = members.world_size();
  HeartbeatOptions options;
  options.path = absl::StrCat(options_.workspace->dir, "/", context_->config.heartbeat.dir_name, "/",
                              absl::StrFormat("rank-%05d.json", members.rank()));
  options.interval = absl::Seconds(context_->config.heartbeat.interval_seconds);
  context_->progress.Beat(std::make_unique<Heartbeat>(std::move(options), std::move(identity)));
}

void RunFiles::Close(const char* outcome, const std::string& error, const ProgressReport& report) {
  if (profiler_ != nullptr) profiler_->Close();
  if (recorder_ != nullptr) recorder_->Finish(outcome, report, error);
  context_->progress.StopBeating();
}

std::vector<std::string> RunFiles::Problems() const {
  std::vector<std::string> problems;
  if (profiler_ != nullptr && !profiler_->error().ok())
    problems.push_back(absl::StrCat("profiling ended: ", profiler_->error().message()));
  if (recorder_ != nullptr && !recorder_->error().ok())
    problems.push_back(absl::StrCat("run files: ", recorder_->error().message()));
  return problems;
}

}  // namespace athanor
