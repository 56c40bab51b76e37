#include "athanor/runner/state/run_state.h"

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/config_loader.h"
#include "athanor/runner/record/json_numbers.h"

namespace athanor {
namespace {

constexpr char kBeforeEvaluation[] = "before_evaluation", kBeforePassEnd[] = "before_pass_end";

absl::StatusOr<nlohmann::json> Part(const nlohmann::json& meta, const char* name) {
  const auto found = meta.find(name);
  if (found == meta.end()) return absl::DataLossError(absl::StrCat("checkpoint: no '", name, "' in its state"));
  return *found;
}

}  // namespace

RunState::RunState(RunContext* context, Trainee* trainee, RunMeasures* measures)
    : context_(context), trainee_(trainee), measures_(measures) {}

void RunState::Keep(ScoreTracker* score, RunRecorder* recorder) {
  score_ = score;
  recorder_ = recorder;
}

absl::StatusOr<TrainingState> RunState::Capture(bool model_only, const PendingWork& pending) {
  ASSIGN_OR_RETURN(TrainingState state, trainee_->CaptureState(model_only));
  state.meta["config"] = ToJson(context_->config);
  state.meta["train"] = train.ToJson();
  if (pending.evaluation) state.meta["train"][kBeforeEvaluation] = true;
  if (pending.pass_end) state.meta["train"][kBeforePassEnd] = true;
  state.meta["elastic"] = elastic.ToJson();
  state.meta["score"] = score_->ToJson();
  state.rank_meta = nlohmann::json::object();
  if (!model_only) RETURN_IF_ERROR(CaptureMeasurements(&state));
  return state;
}

// The rows of results (main process) and the last read-out in `meta`, this rank's sums since then in `rank_meta` and
// `per_rank`. Older checkpoints have nothing of it.
absl::Status RunState::CaptureMeasurements(TrainingState* state) const {
  state->meta["read_out"] = NumbersToJson(context_->progress.report().metrics);
  if (recorder_ != nullptr) {
    state->meta["results"] = recorder_->results().ToJson();
    state->meta["records"] = recorder_->Positions();
  }
  return measures_->Capture(&state->rank_meta["meters"], &state->per_rank);
}

absl::Status RunState::Load(const RestoredState& restored, const StateParts& parts) {
  RETURN_IF_ERROR(trainee_->LoadState(restored, parts));
  if (parts.weights_only || !parts.takes("train")) return absl::OkStatus();
  RETURN_IF_ERROR(LoadCounters(restored.state.meta));
  return LoadMeasurements(restored);
}

absl::Status RunState::LoadCounters(const nlohmann::json& meta) {
  ASSIGN_OR_RETURN(const nlohmann::json counters, Part(meta, "train"));
  RETURN_IF_ERROR(train.FromJson(counters));
  const nlohmann::json yes = true;
  pending_ = {.evaluation = counters.value(kBeforeEvaluation, nlohmann::json()) == yes,
              .pass_end = counters.value(kBeforePassEnd, nlohmann::json()) == yes};
  ASSIGN_OR_RETURN(const nlohmann::json score, Part(meta, "score"));
  RETURN_IF_ERROR(score_->FromJson(score));
  if (const auto found = meta.find("elastic"); found != meta.end()) RETURN_IF_ERROR(elastic.FromJson(*found));
  context_->progress.report().restarts = elastic.restarts;
  return absl::OkStatus();
}

absl::Status RunState::LoadMeasurements(const RestoredState& restored) {
  const nlohmann::json& meta = restored.state.meta;
  if (const auto found = meta.find("read_out"); found != meta.end()) {
    try {
      context_->progress.report().metrics = NumbersFromJson(*found);
    } catch (const std::exception& error) {
      return absl::DataLossError(absl::StrCat("checkpoint: the last read-out is damaged: ", error.what()));
    }
  }
  if (const auto found = meta.find("results"); found != meta.end() && recorder_ != nullptr)
    RETURN_IF_ERROR(recorder_->RestoreResults(*found));
  if (!restored.same_world || !restored.state.rank_meta.is_object()) return absl::OkStatus();
  const auto meters = restored.state.rank_meta.find("meters");
  if (meters == restored.state.rank_meta.end()) return absl::OkStatus();
  std::string remark;
  RETURN_IF_ERROR(measures_->Load(*meters, restored.state.per_rank, context_->device, &remark));
  if (!remark.empty()) context_->notes.Tell(Note::kProblem, remark);
  return absl::OkStatus();
}

}  // namespace athanor
