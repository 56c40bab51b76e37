// Where a BaseRunner starts from, and what it saves.
#include <algorithm>
#include <filesystem>
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
#include "athanor/runner/base_runner.h"
#include "athanor/runner/record/json_numbers.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

constexpr char kMetricsPrefix[] = "metrics.";
constexpr size_t kConfigLimit = 16 << 20;

int64_t CountOf(const TensorMap& tensors, const std::string& prefix) {
  return std::count_if(tensors.begin(), tensors.end(),
                       [&](const auto& tensor) { return absl::StartsWith(tensor.first, prefix); });
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

}  // namespace

absl::StatusOr<std::vector<ResumeCandidate>> BaseRunner::ConfiguredCandidates() {
  if (config_.resume.has_value() && (config_.auto_resume || config_.pretrained.has_value()))
    Note("of resume, auto_resume and pretrained the first that is set counts: resume");
  if (config_.resume.has_value()) {
    absl::StatusOr<ResumeCandidate> candidate = CandidateAt(*config_.resume);
    if (!candidate.ok()) return WithFailureKind(Annotate(candidate.status(), "resume"), FailureKind::kInvalid);
    return std::vector<ResumeCandidate>{*std::move(candidate)};
  }
  if (!config_.auto_resume || options_.checkpoint_root.empty()) return std::vector<ResumeCandidate>();
  automatic_candidates_ = true;
  return AutomaticCandidates();
}

absl::StatusOr<std::vector<ResumeCandidate>> BaseRunner::AutomaticCandidates() {
  ASSIGN_OR_RETURN(std::vector<ResumeCandidate> candidates, ListCheckpointFolders(options_.checkpoint_root));
  if (!candidates.empty()) return candidates;  // read one by one, until one is whole
  std::string text = absl::StrCat("auto_resume: no checkpoint in ", options_.checkpoint_root, " yet");
  if (options_.workspace.has_value()) {
    const std::string neighbour = ResumableNeighbour(*options_.workspace, config_);
    if (!neighbour.empty())
      absl::StrAppend(&text, "; this configuration could go on from ", neighbour, " (set resume, or dir)");
  }
  Note(std::move(text));
  return candidates;
}

// Of those that auto_resume has found. One that is named is refused instead.
bool BaseRunner::PassedOver(const ResumeCandidate& candidate) {
  if (!automatic_candidates_ || !HoldsModelAlone(candidate)) return false;
  Note(absl::StrCat("auto_resume passes over step ", candidate.step, ", which holds the model alone"));
  return true;
}

absl::Status BaseRunner::Restore() {
  if (restored_) return absl::OkStatus();
  Report(RunnerPhase::kRestoring);
  RETURN_IF_ERROR(KeepOutcome(Together("restoring", [this] { return RestoreConfigured(); })));
  if (options_.process_group == nullptr) return absl::OkStatus();
  // A manifest may have been written anew between two ranks' reading.
  ASSIGN_OR_RETURN(const Agreement known, options_.process_group->AllAgree({known_evaluation_.has_value() ? 1 : 0}));
  if (known.min[0] == 0) known_evaluation_.reset();
  return absl::OkStatus();
}

// A state that was not restored, or in part only, is nobody's to train, evaluate or save: the error stays.
absl::Status BaseRunner::KeepOutcome(const absl::Status& status) {
  restored_ = status.ok();
  restore_error_ = status;
  return status;
}

absl::Status BaseRunner::RestoreConfigured() {
  ASSIGN_OR_RETURN(std::optional<RestoredRun> run, checkpoints_->Restore());
  if (!run.has_value()) {
    if (!config_.pretrained.has_value()) return restore_error_;  // of a load by hand, which nothing here makes good
    return Annotate(LoadPretrained(*config_.pretrained), "pretrained");
  }
  const bool weights_only = run->candidate.weights_only;
  RETURN_IF_ERROR(Annotate(LoadState(run->restored, weights_only), absl::StrCat("resume from ", run->candidate.path)));
  if (weights_only) {
    Inform(absl::StrCat("loaded ", CountOf(run->restored.state.replicated, "model."), " tensors from ",
                        run->candidate.path));
    return absl::OkStatus();
  }
  Inform(absl::StrCat("resumed from step ", run->candidate.step, " of ", run->candidate.path));
  // More patience than then lets the run go on.
  if (!excluded("train"))
    state_.stopped_early = config_.patience.has_value() && score_->since_best() > *config_.patience;
  elastic_.restarts += 1;
  elastic_.resumed_from_step = run->candidate.step;
  progress_.resumed_from_step = run->candidate.step;
  TakeEvaluation(run->restored);
  NoteRecords(run->restored, run->candidate);
  return absl::OkStatus();
}

// Rows that came after a checkpoint of this run's own go when it trains on.
void BaseRunner::NoteRecords(const RestoredState& restored, const ResumeCandidate& candidate) {
  std::error_code error;
  const std::string own = absl::StrCat(options_.checkpoint_root, "/", CheckpointDirName(candidate.step));
  if (excluded("train") || !std::filesystem::equivalent(candidate.path, own, error)) return;
  const auto records = restored.state.meta.find("records");
  // An earlier version kept none: rows stay as they are.
  record_positions_ = records == restored.state.meta.end() ? nlohmann::json::object() : *records;
}

// The evaluation of the restored state that an earlier process of this run has made, unless something else is to be
// evaluated now.
void BaseRunner::TakeEvaluation(const RestoredState& restored) {
  const nlohmann::json& meta = restored.state.meta;
  const auto evaluated = meta.find("evaluated"), config = meta.find("config");
  if (evaluated == meta.end() || *evaluated != true || excluded("train") || excluded("model")) return;
  if (config == meta.end() || !config->is_object() ||
      config->value("evaluate", nlohmann::json()) != ToJson(config_).at("evaluate"))
    return;
  for (const std::string& split : evaluate_splits_) {
    const auto first = restored.metrics.lower_bound(split + ".");
    if (first == restored.metrics.end() || !absl::StartsWith(first->first, split + ".")) return;
  }
  for (const std::optional<std::string>& key : {std::optional(score_->key()), MonitoredKey()}) {
    if (key.has_value() && !restored.metrics.contains(*key) && !progress_.metrics.contains(*key)) return;
  }
  known_evaluation_ = KnownEvaluation{.step = restored.step, .results = restored.metrics};
}

absl::Status BaseRunner::LoadCheckpoint(const std::string& path, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    if (IsCheckpointPart(part)) continue;
    return WithFailureKind(absl::InvalidArgumentError(absl::StrCat("load checkpoint: no part '", part, "'; allowed: ",
                                                                   absl::StrJoin(kCheckpointParts, ", "))),
                           FailureKind::kInvalid);
  }
  ResumeCandidate candidate;
  RestoredState restored;
  RETURN_IF_ERROR(Together("reading a checkpoint", [&]() -> absl::Status {
    ASSIGN_OR_RETURN(candidate, CandidateAt(path));
    ASSIGN_OR_RETURN(restored, ReadCheckpoint(candidate, options_.topology.rank(), options_.topology.world_size()));
    return absl::OkStatus();
  }));
  std::set<std::string> excluded(config_.checkpoint.exclude_from_loading.begin(),
                                 config_.checkpoint.exclude_from_loading.end());
  if (!parts.empty()) {
    excluded = std::set<std::string>(kCheckpointParts.begin(), kCheckpointParts.end());
    for (const std::string& part : parts) excluded.erase(part);
  }
  excluded_.swap(excluded);
  const absl::Status loaded =
      Together("loading a checkpoint", [&] { return LoadState(restored, /*weights_only=*/false); });
  excluded_.swap(excluded);
  record_positions_ = nullptr;
  if (loaded.ok()) {
    Inform(absl::StrCat("loaded ", parts.empty() ? "the state" : absl::StrJoin(parts, ", "), " of step ",
                        candidate.step, " from ", candidate.path));
  }
  if (loaded.ok() && parts.empty()) NoteRecords(restored, candidate);
  return KeepOutcome(Annotate(loaded, absl::StrCat("load checkpoint ", candidate.path)));
}

absl::StatusOr<TrainingState> BaseRunner::StateDict() {
  RETURN_IF_ERROR(restore_error_);
  ASSIGN_OR_RETURN(TrainingState state, CaptureState(/*model_only=*/false));
  RETURN_IF_ERROR(RunTorch("copying the state", [&] {
    for (TensorMap* tensors : {&state.replicated, &state.per_rank}) {
      for (auto& [name, tensor] : *tensors) tensor = tensor.detach().clone();
    }
  }));
  return state;
}

absl::Status BaseRunner::LoadStateDict(const TrainingState& state) {
  RestoredState restored;
  restored.state = state;
  restored.world_size = options_.topology.world_size();
  restored.same_world = true;
  evaluated_step_ = -1;
  return KeepOutcome(Together("loading a state", [&] { return LoadState(restored, /*weights_only=*/false); }));
}

RunnerState BaseRunner::CaptureRunnerState() const {
  RunnerState state{.train = state_, .elastic = elastic_, .rng = {}};
  state.rng.Capture(device());
  return state;
}

absl::StatusOr<SaveDecision> BaseRunner::Save(SaveArguments arguments, bool is_best, bool must_wait) {
  arguments.must_wait = must_wait;
  const SaveSituation situation{.epochs = state_.epoch,
                                .step = state_.step,
                                .epoch_fraction = EpochFraction(),
                                .is_best = is_best,
                                .finite = verdict_.nonfinite_in_a_row == 0};
  SaveDecision decision = checkpoints_->Decide(arguments, situation);
  if (checkpoints_->enabled() && !situation.finite)
    Note(absl::StrCat("step ", state_.step, " was not saved: its loss is not finite"));
  if (!decision.save()) return decision;
  Report(RunnerPhase::kSaving);
  SaveRequest request;
  request.step = state_.step;
  request.aliases = decision.aliases;
  request.is_best = is_best && arguments.save_best;
  if (evaluated_step_ == state_.step) request.metrics = evaluation_;
  RETURN_IF_ERROR(checkpoints_->Save(decision, [&] { return CaptureState(decision.model_only); }, request));
  return decision;
}

absl::StatusOr<SaveDecision> BaseRunner::SaveCheckpoint(const SaveArguments& arguments) {
  if (!IsAliasName(arguments.name)) {
    return absl::InvalidArgumentError(absl::StrCat("save checkpoint: name '", arguments.name,
                                                   "'; allowed: letters, digits, '.', '_', '-', not '.' first"));
  }
  RETURN_IF_ERROR(Annotate(restore_error_, "save checkpoint: the state is not whole"));
  return Save(arguments, score_->since_best() == 0, /*must_wait=*/true);
}

absl::Status BaseRunner::SaveSeedCheckpoint(const std::string& name) {
  if (state_.step > 0 || state_.epoch > 0) {
    Note(absl::StrCat("the seed checkpoint '", name, "' was saved after step ", state_.step));
  }
  return SaveCheckpoint({.name = name, .save_best = false, .force = true, .history = false}).status();
}

absl::Status BaseRunner::CaptureMeasurements(TrainingState* state) {
  state->meta["read_out"] = NumbersToJson(progress_.metrics);
  if (recorder_ != nullptr) {
    state->meta["results"] = recorder_->results().ToJson();
    state->meta["records"] = recorder_->Positions();
  }
  RETURN_IF_ERROR(RunTorch("reading the losses", [&] { state->rank_meta["meters"] = meters_.StateDict(); }));
  if (meters_.metrics() == nullptr) return absl::OkStatus();
  absl::StatusOr<TensorMap> metrics = meters_.metrics()->StateTensors();
  if (absl::IsUnimplemented(metrics.status())) return absl::OkStatus();  // a set of the user's own
  RETURN_IF_ERROR(metrics.status());
  for (auto& [name, tensor] : *metrics) state->per_rank[absl::StrCat(kMetricsPrefix, name)] = std::move(tensor);
  return absl::OkStatus();
}

absl::Status BaseRunner::LoadMetrics(const TensorMap& per_rank) {
  TensorMap state;
  for (const auto& [name, tensor] : per_rank) {
    if (absl::StartsWith(name, kMetricsPrefix)) state[name.substr(sizeof(kMetricsPrefix) - 1)] = tensor.to(device());
  }
  // Other metrics than then begin anew, as they would without a checkpoint.
  if (state.empty() || meters_.metrics() == nullptr) return absl::OkStatus();
  const absl::Status loaded = meters_.metrics()->LoadState(state);
  if (!loaded.ok()) Note(absl::StrCat("the training metrics begin anew: ", loaded.message()));
  return absl::OkStatus();
}

absl::Status BaseRunner::LoadMeasurements(const RestoredState& restored) {
  const nlohmann::json& meta = restored.state.meta;
  if (const auto found = meta.find("read_out"); found != meta.end()) {
    try {
      progress_.metrics = NumbersFromJson(*found);
    } catch (const std::exception& error) {
      return absl::DataLossError(absl::StrCat("checkpoint: the last read-out is damaged: ", error.what()));
    }
  }
  if (const auto found = meta.find("results"); found != meta.end() && recorder_ != nullptr)
    RETURN_IF_ERROR(recorder_->RestoreResults(*found));
  if (!restored.same_world || !restored.state.rank_meta.is_object()) return absl::OkStatus();
  const auto meters = restored.state.rank_meta.find("meters");
  if (meters != restored.state.rank_meta.end()) RETURN_IF_ERROR(meters_.LoadStateDict(*meters));
  return LoadMetrics(restored.state.per_rank);
}

absl::Status BaseRunner::WaitForCheckpoints() {
  return checkpoints_->Drain();
}

}  // namespace athanor
