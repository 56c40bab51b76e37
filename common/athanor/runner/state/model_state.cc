#include "athanor/runner/state/model_state.h"

#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/config_loader.h"
#include "athanor/io/dtype_names.h"
#include "athanor/io/tied_tensors.h"
#include "athanor/runner/state/pretrained.h"
#include "athanor/runner/state/runner_state.h"
#include "athanor/torch/module_tensors.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

constexpr int kStateFormat = 1;
constexpr absl::string_view kModelPrefix = "model.";

absl::StatusOr<nlohmann::json> Part(const nlohmann::json& meta, const char* name) {
  const auto found = meta.find(name);
  if (found == meta.end()) return absl::DataLossError(absl::StrCat("checkpoint: no '", name, "' in its state"));
  return *found;
}

}  // namespace

absl::StatusOr<TrainingState> ModelState::Capture(bool model_only) const {
  RETURN_IF_ERROR(CheckParameters());
  if (trained_->reducer != nullptr) RETURN_IF_ERROR(trained_->reducer->SyncBuffers());
  TrainingState state;
  RETURN_IF_ERROR(RunTorch("capturing the state", [&] {
    torch::NoGradGuard no_grad;
    for (const auto& [name, tensor] : StateOf(*trained_->model))
      state.replicated[absl::StrCat(kModelPrefix, name)] = tensor.detach();
    if (model_only) {
      const std::optional<std::string>& dtype = context_->config.checkpoint.export_dtype;
      if (dtype.has_value()) CastFloats(&state.replicated, DtypeOfOption(*dtype).value_or(torch::kFloat));
      return;
    }
    state.replicated.merge(trained_->optimizer->StateTensors());
    if (trained_->average != nullptr) trained_->average->Store(&state.replicated);
    CaptureGenerators(context_->device, &state.per_rank);
  }));
  state.meta = {{"format", kStateFormat}, {"seed", *seed_}, {"model_only", model_only}};
  if (!model_only) {
    state.meta["loader"] = data_->train().StateDict();
    state.meta["optimizer"] = trained_->optimizer->StateScalars();
    state.meta["scheduler"] =
        trained_->scheduler == nullptr ? nlohmann::json(nullptr) : trained_->scheduler->StateDict();
    state.meta["gradient_scale"] = trained_->scale.ToJson();
  }
  return state;
}

absl::Status ModelState::Load(const RestoredState& restored, const StateParts& parts, int64_t step) {
  const TrainingState& state = restored.state;
  if (!parts.weights_only && state.meta.is_object() && state.meta.value("model_only", false) &&
      !OnlyModelWanted(parts)) {
    return WithFailureKind(
        absl::InvalidArgumentError("the checkpoint holds the model alone (checkpoint.last_save_model_only): "
                                   "take it as weights of a new job"),
        FailureKind::kInvalid);
  }
  if (parts.weights_only || parts.takes("model")) RETURN_IF_ERROR(LoadModel(state.replicated));
  if (parts.weights_only) {
    if (trained_->average != nullptr) trained_->average->CopyFromModel();
    return absl::OkStatus();
  }
  const auto format = state.meta.find("format");
  if (format == state.meta.end() || *format != kStateFormat) {
    return absl::DataLossError(absl::StrCat("checkpoint: its state is of another format than ", kStateFormat));
  }
  if (trained_->average != nullptr && parts.takes("ema")) RETURN_IF_ERROR(trained_->average->Load(state.replicated));
  if (parts.takes("optimizer")) {
    ASSIGN_OR_RETURN(const nlohmann::json scalars, Part(state.meta, "optimizer"));
    RETURN_IF_ERROR(trained_->optimizer->LoadState(state.replicated, scalars));
  }
  return LoadTraining(restored, parts, step);
}

absl::Status ModelState::LoadPretrained(const std::string& path) {
  std::vector<std::string> skipped;
  ASSIGN_OR_RETURN(const TensorMap weights, ReadWeights(path, &skipped));
  if (!skipped.empty())
    context_->notes.Tell(Note::kProblem,
                         absl::StrCat("pretrained: left out of ", path, ", being no tensors: ", ShortList(skipped)));
  WeightsOptions options;
  for (const KeyMappingConfig& rule : context_->config.pretrained_key_mapping)
    options.rename.emplace_back(rule.pattern, rule.replacement);
  ASSIGN_OR_RETURN(const WeightsReport report, LoadWeights(weights, options, trained_->model.get()));
  context_->notes.Tell(Note::kEvent, absl::StrCat("loaded ", report.loaded.size(), " tensors from ", path));
  if (trained_->average != nullptr) trained_->average->CopyFromModel();
  return absl::OkStatus();
}

// The optimizer, the exchange and the average hold the parameters of the start.
absl::Status ModelState::CheckParameters() const {
  std::set<const c10::TensorImpl*> present;
  for (const auto& [name, parameter] : DistinctParameters(*trained_->model))
    present.insert(parameter.unsafeGetTensorImpl());
  auto trained = trained_->optimizer->parameters().begin();
  for (size_t group = 0; group < trained_->optimizer->group_count(); ++group) {
    for (const std::string& name : trained_->optimizer->group_parameters(group)) {
      if (present.contains((trained++)->unsafeGetTensorImpl())) continue;
      return WithFailureKind(absl::FailedPreconditionError(
                                 absl::StrCat("the model's parameter '", name,
                                              "' is another tensor than the one that is trained: parameters must "
                                              "be changed in place, not assigned anew, once the runner is made")),
                             FailureKind::kUserCode);
    }
  }
  return absl::OkStatus();
}

// The file's tensor for one of the model's: under its name, or under another one of the same tensor (tied weights).
absl::Status ModelState::LoadModel(const TensorMap& tensors) {
  torch::NoGradGuard no_grad;
  const std::map<std::string, torch::Tensor> model = StateOf(*trained_->model);
  std::map<const c10::TensorImpl*, std::string> given;
  for (const auto& [name, tensor] : model) {
    if (tensors.contains(absl::StrCat(kModelPrefix, name))) given.emplace(tensor.unsafeGetTensorImpl(), name);
  }
  for (const auto& [own_name, tensor] : model) {
    const auto other = given.find(tensor.unsafeGetTensorImpl());
    const bool tied = other != given.end() && !tensors.contains(absl::StrCat(kModelPrefix, own_name));
    const std::string name = absl::StrCat(kModelPrefix, tied ? other->second : own_name);
    const auto found = tensors.find(name);
    if (found == tensors.end()) {
      return WithFailureKind(
          absl::InvalidArgumentError(absl::StrCat("the checkpoint has no tensor '", name, "': it is of another model")),
          FailureKind::kInvalid);
    }
    if (found->second.sizes() != tensor.sizes()) {
      return WithFailureKind(absl::InvalidArgumentError(
                                 absl::StrCat("tensor '", name, "' is ", c10::str(found->second.sizes()),
                                              " in the checkpoint and ", c10::str(tensor.sizes()), " in the model")),
                             FailureKind::kInvalid);
    }
    RETURN_IF_ERROR(RunTorch("loading the model", [&, &target = tensor] { target.detach().copy_(found->second); }));
  }
  return absl::OkStatus();
}

bool ModelState::OnlyModelWanted(const StateParts& parts) const {
  return !parts.takes("optimizer") && !parts.takes("scheduler") && !parts.takes("dataloader") &&
         !parts.takes("train") && !parts.takes("rng") && (trained_->average == nullptr || !parts.takes("ema"));
}

absl::Status ModelState::LoadTraining(const RestoredState& restored, const StateParts& parts, int64_t step) {
  const nlohmann::json& meta = restored.state.meta;
  if (parts.takes("dataloader")) RETURN_IF_ERROR(LoadDataPosition(meta));
  if (trained_->scheduler != nullptr && parts.takes("scheduler")) {
    ASSIGN_OR_RETURN(const nlohmann::json scheduler, Part(meta, "scheduler"));
    if (!scheduler.is_null()) RETURN_IF_ERROR(trained_->scheduler->LoadStateDict(scheduler));
  }
  if (!parts.takes("train")) RETURN_IF_ERROR(EndPassOf(meta, parts, step));
  if (parts.takes("optimizer")) {
    ASSIGN_OR_RETURN(const nlohmann::json scale, Part(meta, "gradient_scale"));
    RETURN_IF_ERROR(trained_->scale.FromJson(scale));
  }
  return parts.takes("rng") ? LoadRandomStates(restored) : absl::OkStatus();
}

absl::Status ModelState::LoadRandomStates(const RestoredState& restored) {
  if (restored.same_world) return RestoreGenerators(context_->device, restored.state.per_rank);
  // Another number of ranks: no rank's numbers go on where they were, but they must not start over either.
  SeedGenerators(*seed_ + static_cast<uint64_t>(context_->members.rank()) +
                 0x9e3779b97f4a7c15ull * static_cast<uint64_t>(restored.step + 1));
  return absl::OkStatus();
}

// The checkpoint may have been made before the end of its pass, which the counters would say: they are not taken.
absl::Status ModelState::EndPassOf(const nlohmann::json& meta, const StateParts& parts, int64_t step) {
  const auto train = meta.find("train");
  if (train == meta.end() || !train->is_object() || train->value("before_pass_end", nlohmann::json()) != true)
    return absl::OkStatus();
  if (parts.takes("dataloader")) data_->train().NextRound(step);
  if (trained_->scheduler == nullptr || !parts.takes("scheduler") || trained_->scheduler->needs_metric())
    return absl::OkStatus();
  return trained_->container->StepEpoch(std::nullopt);
}

absl::Status ModelState::LoadDataPosition(const nlohmann::json& meta) {
  ASSIGN_OR_RETURN(const nlohmann::json seed, Part(meta, "seed"));
  if (!seed.is_number_integer()) return absl::DataLossError("checkpoint: seed is not a number");
  // The seed was drawn by the first process; the order of the data depends on it.
  if (!context_->config.seed.has_value()) *seed_ = seed.get<uint64_t>();
  ASSIGN_OR_RETURN(const nlohmann::json loader, Part(meta, "loader"));
  return data_->LoadPosition(loader, *seed_);
}

}  // namespace athanor
