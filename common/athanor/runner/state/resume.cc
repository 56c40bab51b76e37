#include "athanor/runner/state/resume.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/file_system.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/alias_files.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/config/config_loader.h"
#include "athanor/config/derived_options.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

constexpr size_t kConfigLimit = 16 << 20;

int64_t CountOf(const TrainingState& state, const std::string& prefix) {
  const auto count = [&](const auto& tensors) {
    return std::count_if(tensors.begin(), tensors.end(),
                         [&](const auto& tensor) { return absl::StartsWith(tensor.first, prefix); });
  };
  return count(state.replicated) + count(state.sharded);
}

bool HoldsModelAlone(const ResumeCandidate& candidate) {
  const absl::StatusOr<nlohmann::json> meta = ReadCheckpointMeta(candidate);
  return meta.ok() && meta->is_object() && meta->value("model_only", false);
}

// The newest checkpoint beside `dir` whose configuration differs in nothing that forbids a resume: a run that was
// started anew with other options than intended.
std::string ResumableNeighbour(const Workspace& workspace, const RunnerConfig& config) {
  std::error_code error;
  const std::filesystem::path own(workspace.dir);
  for (const auto& folder : std::filesystem::directory_iterator(own.parent_path(), error)) {
    if (folder.path() == own) continue;
    const absl::StatusOr<std::string> text = ReadFile((folder.path() / kConfigFile).string(), kConfigLimit);
    if (!text.ok() || !ResumeDifferences(ParseJsonText(*text), config).empty()) continue;
    const auto found = ListCheckpointFolders((folder.path() / config.checkpoint.dir_name).string());
    if (found.ok() && !found->empty()) return found->front().path;
  }
  return "";
}

absl::Status CheckParts(const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    if (IsCheckpointPart(part)) continue;
    return WithFailureKind(absl::InvalidArgumentError(absl::StrCat("load checkpoint: no part '", part, "'; allowed: ",
                                                                   absl::StrJoin(kCheckpointParts, ", "))),
                           FailureKind::kInvalid);
  }
  return absl::OkStatus();
}

}  // namespace

Resume::Resume(RunContext* context, Trainee* trainee, std::vector<ResumeCandidate> candidates)
    : context_(context), trainee_(trainee), candidates_(std::move(candidates)) {}

absl::Status Resume::FindCandidates(const std::string& root, const std::optional<Workspace>& workspace) {
  root_ = root;
  if (!candidates_.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(candidates_, Configured(root, workspace));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ResumeCandidate>> Resume::Configured(const std::string& root,
                                                                const std::optional<Workspace>& workspace) {
  const RunnerConfig& config = context_->config;
  if (config.resume.has_value() && (config.auto_resume || config.pretrained.has_value()))
    context_->notes.Tell(Note::kProblem, "of resume, auto_resume and pretrained the first that is set counts: resume");
  if (config.resume.has_value()) {
    absl::StatusOr<ResumeCandidate> candidate = CandidateAt(*config.resume);
    if (!candidate.ok()) return WithFailureKind(Annotate(candidate.status(), "resume"), FailureKind::kInvalid);
    return std::vector<ResumeCandidate>{*std::move(candidate)};
  }
  if (!config.auto_resume || root.empty()) return std::vector<ResumeCandidate>();
  automatic_ = true;
  ASSIGN_OR_RETURN(std::vector<ResumeCandidate> candidates, ListCheckpointFolders(root));
  if (!candidates.empty()) return candidates;  // read one by one, until one is whole
  std::string text = absl::StrCat("auto_resume: no checkpoint in ", root, " yet");
  if (workspace.has_value()) {
    const std::string neighbour = ResumableNeighbour(*workspace, config);
    if (!neighbour.empty())
      absl::StrAppend(&text, "; this configuration could go on from ", neighbour, " (set resume, or dir)");
  }
  context_->notes.Tell(Note::kProblem, std::move(text));
  return candidates;
}

bool Resume::PassedOver(const ResumeCandidate& candidate) {
  if (!automatic_ || !HoldsModelAlone(candidate)) return false;
  context_->notes.Tell(Note::kProblem,
                       absl::StrCat("auto_resume passes over step ", candidate.step, ", which holds the model alone"));
  return true;
}

StateParts Resume::ConfiguredParts() const {
  const auto& left_out = context_->config.checkpoint.exclude_from_loading;
  return {.left_out = {left_out.begin(), left_out.end()}};
}

absl::Status Resume::KeepOutcome(const absl::Status& status) {
  done_ = status.ok();
  error_ = status;
  return status;
}

absl::Status Resume::Restore(RunCheckpoints* checkpoints, RunState* state, Evaluation* evaluation) {
  if (done_) return absl::OkStatus();
  RETURN_IF_ERROR(
      KeepOutcome(context_->Together("restoring", [&] { return RestoreConfigured(checkpoints, state, evaluation); })));
  return evaluation->AgreeOnOffer();
}

absl::Status Resume::RestoreConfigured(RunCheckpoints* checkpoints, RunState* state, Evaluation* evaluation) {
  const std::optional<std::string>& pretrained = context_->config.pretrained;
  ASSIGN_OR_RETURN(std::optional<RestoredRun> run, checkpoints->Restore());
  if (!run.has_value()) {
    if (!pretrained.has_value()) return error_;  // of a load by hand, which nothing here makes good
    return Annotate(trainee_->LoadPretrained(*pretrained), "pretrained");
  }
  const ResumeCandidate& candidate = run->candidate;
  StateParts parts = ConfiguredParts();
  parts.weights_only = candidate.weights_only;
  RETURN_IF_ERROR(Annotate(state->Load(run->restored, parts), absl::StrCat("resume from ", candidate.path)));
  if (parts.weights_only) {
    context_->notes.Tell(Note::kEvent, absl::StrCat("loaded ", CountOf(run->restored.state, "model."), " tensors from ",
                                                    candidate.path));
    return absl::OkStatus();
  }
  context_->notes.Tell(Note::kFact, absl::StrCat("resumed from step ", candidate.step, " of ", candidate.path));
  // More patience than then lets the run go on.
  const std::optional<double> patience = context_->config.patience;
  if (parts.takes("train"))
    state->train.stopped_early = patience.has_value() && evaluation->score().since_best() > *patience;
  state->elastic.restarts += 1;
  state->elastic.resumed_from_step = candidate.step;
  context_->progress.report().restarts = state->elastic.restarts;
  context_->progress.report().resumed_from_step = candidate.step;
  const nlohmann::json& meta = run->restored.state.meta;
  if (meta.value("evaluated", nlohmann::json()) == nlohmann::json(true) && parts.takes("train") && parts.takes("model"))
    evaluation->Offer(run->restored.step, run->restored.metrics, meta.value("config", nlohmann::json()));
  NoteRecords(run->restored, candidate, parts);
  return absl::OkStatus();
}

// Rows that came after a checkpoint of this run's own go when it trains on.
void Resume::NoteRecords(const RestoredState& restored, const ResumeCandidate& candidate, const StateParts& parts) {
  std::error_code error;
  const std::string own = absl::StrCat(root_, "/", CheckpointDirName(candidate.step));
  if (!parts.takes("train") || !std::filesystem::equivalent(candidate.path, own, error)) return;
  const auto records = restored.state.meta.find("records");
  // An earlier version kept none: rows stay as they are.
  record_positions_ = records == restored.state.meta.end() ? nlohmann::json::object() : *records;
}

absl::Status Resume::Load(const std::string& path, const std::vector<std::string>& parts, RunState* state) {
  RETURN_IF_ERROR(CheckParts(parts));
  ResumeCandidate candidate;
  RestoredState restored;
  const auto on_bytes = [this](const char* doing, int64_t bytes) { context_->progress.Advance(doing, bytes); };
  RETURN_IF_ERROR(context_->Together("reading a checkpoint", [&]() -> absl::Status {
    ASSIGN_OR_RETURN(candidate, CandidateAt(path));
    ASSIGN_OR_RETURN(restored, ReadCheckpoint(candidate, context_->members.rank(), context_->members.world_size(),
                                              on_bytes, {}, trainee_->WantedParts()));
    return absl::OkStatus();
  }));
  StateParts wanted = ConfiguredParts();
  if (!parts.empty()) {
    wanted.left_out = std::set<std::string>(kCheckpointParts.begin(), kCheckpointParts.end());
    for (const std::string& part : parts) wanted.left_out.erase(part);
  }
  const absl::Status loaded = context_->Together("loading a checkpoint", [&] { return state->Load(restored, wanted); });
  record_positions_ = nullptr;
  if (loaded.ok()) {
    context_->notes.Tell(Note::kEvent, absl::StrCat("loaded ", parts.empty() ? "the state" : absl::StrJoin(parts, ", "),
                                                    " of step ", candidate.step, " from ", candidate.path));
    if (parts.empty()) NoteRecords(restored, candidate, wanted);
  }
  return KeepOutcome(Annotate(loaded, absl::StrCat("load checkpoint ", candidate.path)));
}

absl::Status Resume::LoadState(const RestoredState& restored, RunState* state) {
  return KeepOutcome(context_->Together("loading a state", [&] { return state->Load(restored, ConfiguredParts()); }));
}

}  // namespace athanor
