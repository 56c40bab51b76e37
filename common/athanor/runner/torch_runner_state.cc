// What a TorchRunner puts into a checkpoint, and takes from one.
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/config_loader.h"
#include "athanor/io/dtype_names.h"
#include "athanor/io/tied_tensors.h"
#include "athanor/runner/state/pretrained.h"
#include "athanor/runner/torch_runner.h"
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

absl::StatusOr<TrainingState> TorchRunner::CaptureState(bool model_only) {
  RETURN_IF_ERROR(CheckParameters());
  if (reducer_ != nullptr) RETURN_IF_ERROR(reducer_->SyncBuffers());
  TrainingState state;
  RETURN_IF_ERROR(RunTorch("capturing the state", [&] {
    torch::NoGradGuard no_grad;
    for (const auto& [name, tensor] : StateOf(*model_))
      state.replicated[absl::StrCat(kModelPrefix, name)] = tensor.detach();
    if (model_only) {
      const std::optional<std::string>& dtype = config_.checkpoint.export_dtype;
      if (dtype.has_value()) CastFloats(&state.replicated, DtypeOfOption(*dtype).value_or(torch::kFloat));
      return;
    }
    state.replicated.merge(optimizer_->StateTensors());
    if (average_ != nullptr) average_->Store(&state.replicated);
    CaptureGenerators(device_, &state.per_rank);
  }));
  state.meta = {{"format", kStateFormat},   {"config", ToJson(config_)}, {"seed", seed_},
                {"model_only", model_only}, {"train", state_.ToJson()},  {"elastic", elastic_.ToJson()},
                {"score", score_->ToJson()}};
  if (!model_only) {
    state.meta["loader"] = loader_->StateDict();
    state.meta["optimizer"] = optimizer_->StateScalars();
    state.meta["scheduler"] = scheduler_ == nullptr ? nlohmann::json(nullptr) : scheduler_->StateDict();
    state.meta["gradient_scale"] = gradient_scale_.ToJson();
  }
  state.rank_meta = nlohmann::json::object();
  if (!model_only) RETURN_IF_ERROR(CaptureMeasurements(&state));
  return state;
}

absl::Status TorchRunner::LoadState(const RestoredState& restored, bool weights_only) {
  const TrainingState& state = restored.state;
  if (!weights_only && state.meta.is_object() && state.meta.value("model_only", false) && !OnlyModelWanted()) {
    return WithFailureKind(
        absl::InvalidArgumentError("the checkpoint holds the model alone (checkpoint.last_save_model_only): "
                                   "take it as weights of a new job"),
        FailureKind::kInvalid);
  }
  if (weights_only || !excluded("model")) RETURN_IF_ERROR(LoadModel(state.replicated));
  if (weights_only) {
    if (average_ != nullptr) average_->CopyFromModel();
    return absl::OkStatus();
  }
  const auto format = state.meta.find("format");
  if (format == state.meta.end() || *format != kStateFormat) {
    return absl::DataLossError(absl::StrCat("checkpoint: its state is of another format than ", kStateFormat));
  }
  if (average_ != nullptr && !excluded("ema")) RETURN_IF_ERROR(average_->Load(state.replicated));
  if (!excluded("optimizer")) {
    ASSIGN_OR_RETURN(const nlohmann::json scalars, Part(state.meta, "optimizer"));
    RETURN_IF_ERROR(optimizer_->LoadState(state.replicated, scalars));
  }
  return LoadProgress(restored);
}

absl::Status TorchRunner::LoadPretrained(const std::string& path) {
  std::vector<std::string> skipped;
  ASSIGN_OR_RETURN(const TensorMap weights, ReadWeights(path, &skipped));
  if (!skipped.empty())
    Note(absl::StrCat("pretrained: left out of ", path, ", being no tensors: ", ShortList(skipped)));
  WeightsOptions options;
  for (const KeyMappingConfig& rule : config().pretrained_key_mapping)
    options.rename.emplace_back(rule.pattern, rule.replacement);
  ASSIGN_OR_RETURN(const WeightsReport report, LoadWeights(weights, options, model_.get()));
  Inform(absl::StrCat("loaded ", report.loaded.size(), " tensors from ", path));
  if (average_ != nullptr) average_->CopyFromModel();
  return absl::OkStatus();
}

// The optimizer, the exchange and the average hold the parameters of the start.
absl::Status TorchRunner::CheckParameters() const {
  std::set<const c10::TensorImpl*> present;
  for (const auto& [name, parameter] : DistinctParameters(*model_)) present.insert(parameter.unsafeGetTensorImpl());
  auto trained = optimizer_->parameters().begin();
  for (size_t group = 0; group < optimizer_->group_count(); ++group) {
    for (const std::string& name : optimizer_->group_parameters(group)) {
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
absl::Status TorchRunner::LoadModel(const TensorMap& tensors) {
  torch::NoGradGuard no_grad;
  const std::map<std::string, torch::Tensor> model = StateOf(*model_);
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

bool TorchRunner::OnlyModelWanted() const {
  return excluded("optimizer") && excluded("scheduler") && excluded("dataloader") && excluded("train") &&
         excluded("rng") && (average_ == nullptr || excluded("ema"));
}

absl::Status TorchRunner::LoadProgress(const RestoredState& restored) {
  const nlohmann::json& meta = restored.state.meta;
  if (!excluded("dataloader")) RETURN_IF_ERROR(LoadDataPosition(meta));
  if (!excluded("train")) {
    ASSIGN_OR_RETURN(const nlohmann::json train, Part(meta, "train"));
    RETURN_IF_ERROR(state_.FromJson(train));
    ASSIGN_OR_RETURN(const nlohmann::json score, Part(meta, "score"));
    RETURN_IF_ERROR(score_->FromJson(score));
    if (const auto elastic = meta.find("elastic"); elastic != meta.end()) RETURN_IF_ERROR(elastic_.FromJson(*elastic));
    RETURN_IF_ERROR(LoadMeasurements(restored));
  }
  if (scheduler_ != nullptr && !excluded("scheduler")) {
    ASSIGN_OR_RETURN(const nlohmann::json scheduler, Part(meta, "scheduler"));
    if (!scheduler.is_null()) RETURN_IF_ERROR(scheduler_->LoadStateDict(scheduler));
  }
  if (excluded("train")) RETURN_IF_ERROR(EndPassOf(meta));
  if (!excluded("optimizer")) {
    ASSIGN_OR_RETURN(const nlohmann::json scale, Part(meta, "gradient_scale"));
    RETURN_IF_ERROR(gradient_scale_.FromJson(scale));
  }
  if (excluded("rng")) return absl::OkStatus();
  if (restored.same_world) return RestoreGenerators(device_, restored.state.per_rank);
  // Another number of ranks: no rank's numbers go on where they were, but they must not start over either.
  SeedGenerators(seed_ + static_cast<uint64_t>(options_.topology.rank()) +
                 0x9e3779b97f4a7c15ull * static_cast<uint64_t>(restored.step + 1));
  return absl::OkStatus();
}

// The checkpoint may have been made before the end of its pass, which the counters would say: they are not taken.
absl::Status TorchRunner::EndPassOf(const nlohmann::json& meta) {
  const auto train = meta.find("train");
  if (train == meta.end() || !train->is_object() || train->value("before_pass_end", nlohmann::json()) != true)
    return absl::OkStatus();
  if (!excluded("dataloader")) loader_->NextRound(state_.step);
  if (scheduler_ == nullptr || excluded("scheduler") || scheduler_->needs_metric()) return absl::OkStatus();
  return container_->StepEpoch(std::nullopt);
}

absl::Status TorchRunner::LoadDataPosition(const nlohmann::json& meta) {
  ASSIGN_OR_RETURN(const nlohmann::json seed, Part(meta, "seed"));
  if (!seed.is_number_integer()) return absl::DataLossError("checkpoint: seed is not a number");
  if (!config_.seed.has_value() && seed.get<uint64_t>() != seed_) {
    // The seed was drawn by the first process; the order of the data depends on it.
    seed_ = seed.get<uint64_t>();
    ASSIGN_OR_RETURN(loader_, BuildTrainLoaders());
  }
  ASSIGN_OR_RETURN(const nlohmann::json loader, Part(meta, "loader"));
  return loader_->LoadStateDict(loader);
}

}  // namespace athanor
