#include "athanor/runner/state/model_state.h"

#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/config_loader.h"
#include "athanor/io/dtype_names.h"
#include "athanor/io/tied_tensors.h"
#include "athanor/runner/state/divided_state.h"
#include "athanor/runner/state/pretrained.h"
#include "athanor/runner/state/runner_state.h"
#include "athanor/torch/module_tensors.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

constexpr int kStateFormat = 1;
constexpr absl::string_view kModelPrefix = "model.", kOptimizerPrefix = "optim.";

void CastAll(torch::ScalarType dtype, TrainingState* state) {
  CastFloats(&state->replicated, dtype);
  for (auto& [name, sharded] : state->sharded) {
    for (TensorPart& part : sharded.parts) {
      if (part.values.is_floating_point()) part.values = part.values.to(dtype);
    }
  }
}

absl::Status NoTensor(const std::string& name) {
  return WithFailureKind(
      absl::InvalidArgumentError(absl::StrCat("the checkpoint has no tensor '", name, "': it is of another model")),
      FailureKind::kInvalid);
}

absl::StatusOr<nlohmann::json> Part(const nlohmann::json& meta, const char* name) {
  const auto found = meta.find(name);
  if (found == meta.end()) return absl::DataLossError(absl::StrCat("checkpoint: no '", name, "' in its state"));
  return *found;
}

}  // namespace

absl::StatusOr<TrainingState> ModelState::Capture(bool model_only) const {
  RETURN_IF_ERROR(CheckParameters());
  RETURN_IF_ERROR(trained_->strategy->SyncBuffers());
  TrainingState state;
  state.replicas = trained_->strategy->replicas();
  state.replica = trained_->strategy->replica();
  RETURN_IF_ERROR(RunTorch("capturing the state", [&] {
    torch::NoGradGuard no_grad;
    CaptureModel(&state);
    if (model_only) {
      const std::optional<std::string>& dtype = context_->config.checkpoint.export_dtype;
      if (dtype.has_value()) CastAll(DtypeOfOption(*dtype).value_or(torch::kFloat), &state);
      return;
    }
    CaptureOptimizer(&state);
    if (trained_->average != nullptr) trained_->average->Store(&state);
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

// Under every name that it has, a divided parameter under its first one.
void ModelState::CaptureModel(TrainingState* state) const {
  const auto prefixed = [](const std::string& name) { return absl::StrCat(kModelPrefix, name); };
  const std::map<std::string, std::vector<std::string>> tied = TiedNames(*trained_->model);
  std::set<const c10::TensorImpl*> divided;
  for (const OwnedParameter& one : trained_->strategy->owned()) {
    if (!one.divided) continue;
    divided.insert(one.parameter.unsafeGetTensorImpl());
    std::vector<std::string> also;
    if (const auto others = tied.find(one.name); others != tied.end()) {
      for (const std::string& name : others->second) also.push_back(prefixed(name));
    }
    StoreLike(one, one.value, prefixed(one.name), also, state);
  }
  for (const auto& [name, tensor] : StateOf(*trained_->model)) {
    if (!divided.contains(tensor.unsafeGetTensorImpl())) state->replicated[prefixed(name)] = tensor.detach();
  }
}

void ModelState::CaptureOptimizer(TrainingState* state) const {
  TensorMap tensors = trained_->optimizer->StateTensors();
  if (trained_->optimizer->DividesState()) {
    for (const OwnedParameter& one : trained_->strategy->owned()) {
      if (!one.divided) continue;
      const std::string prefix = absl::StrCat(kOptimizerPrefix, one.name, ".");
      for (auto at = tensors.lower_bound(prefix); at != tensors.end() && absl::StartsWith(at->first, prefix);) {
        if (at->first.find('.', prefix.size()) != std::string::npos) {  // a slot has no dot in its name
          ++at;
          continue;
        }
        StoreLike(one, at->second, at->first, {}, state);
        at = tensors.erase(at);
      }
    }
  }
  state->replicated.merge(tensors);
}

// What the optimizer's own tensors were made of, of those that a checkpoint has.
absl::StatusOr<TensorMap> ModelState::OptimizerTensors(const TrainingState& state) const {
  if (!trained_->strategy->divides() || !trained_->optimizer->DividesState()) return state.replicated;
  std::map<std::string, const OwnedParameter*> divided;
  for (const OwnedParameter& one : trained_->strategy->owned()) {
    if (one.divided) divided[one.name] = &one;
  }
  TensorMap tensors;
  const auto take = [&](const std::string& key) -> absl::Status {
    if (!absl::StartsWith(key, kOptimizerPrefix)) return absl::OkStatus();
    const std::string name = key.substr(kOptimizerPrefix.size(), key.rfind('.') - kOptimizerPrefix.size());
    const auto found = divided.find(name);
    if (found == divided.end()) {
      if (const auto whole = state.replicated.find(key); whole != state.replicated.end()) tensors[key] = whole->second;
      return absl::OkStatus();
    }
    if (found->second->value.numel() == 0) return absl::OkStatus();
    ASSIGN_OR_RETURN(tensors[key], FindLike(*found->second, key, state));
    return absl::OkStatus();
  };
  for (const auto& [key, tensor] : state.replicated) RETURN_IF_ERROR(take(key));
  for (const auto& [key, tensor] : state.sharded) RETURN_IF_ERROR(take(key));
  return tensors;
}

PartsWanted ModelState::Wanted() const {
  return PartsOf(trained_->strategy->owned(), TiedNames(*trained_->model), trained_->optimizer->DividesState());
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
  if (parts.weights_only || parts.takes("model")) {
    RETURN_IF_ERROR(LoadModel(state));
    RETURN_IF_ERROR(trained_->strategy->PartsChanged());
  }
  if (parts.weights_only) {
    if (trained_->average != nullptr) trained_->average->CopyFromModel();
    return absl::OkStatus();
  }
  const auto format = state.meta.find("format");
  if (format == state.meta.end() || *format != kStateFormat) {
    return absl::DataLossError(absl::StrCat("checkpoint: its state is of another format than ", kStateFormat));
  }
  if (trained_->average != nullptr && parts.takes("ema")) RETURN_IF_ERROR(trained_->average->Load(state));
  if (parts.takes("optimizer")) {
    ASSIGN_OR_RETURN(const nlohmann::json scalars, Part(state.meta, "optimizer"));
    ASSIGN_OR_RETURN(const TensorMap tensors, OptimizerTensors(state));
    RETURN_IF_ERROR(trained_->optimizer->LoadState(tensors, scalars));
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
  std::map<const c10::TensorImpl*, const OwnedParameter*> divided;
  for (const OwnedParameter& one : trained_->strategy->owned()) {
    if (one.divided) divided[one.parameter.unsafeGetTensorImpl()] = &one;
  }
  options.write = [&](torch::Tensor target, const torch::Tensor& values) {
    const auto found = divided.find(target.unsafeGetTensorImpl());
    if (found == divided.end()) {
      target.copy_(values);
      return;
    }
    torch::Tensor own = found->second->value;
    own.copy_(values.reshape({-1}).narrow(0, found->second->begin, own.numel()));
  };
  ASSIGN_OR_RETURN(const WeightsReport report, LoadWeights(weights, options, trained_->model.get()));
  RETURN_IF_ERROR(trained_->strategy->PartsChanged());
  context_->notes.Tell(Note::kEvent, absl::StrCat("loaded ", report.loaded.size(), " tensors from ", path));
  if (trained_->average != nullptr) trained_->average->CopyFromModel();
  return absl::OkStatus();
}

// The optimizer, the exchange and the average hold the parameters of the start.
absl::Status ModelState::CheckParameters() const {
  std::set<const c10::TensorImpl*> present;
  for (const auto& [name, parameter] : DistinctParameters(*trained_->model))
    present.insert(parameter.unsafeGetTensorImpl());
  for (const OwnedParameter& one : trained_->strategy->owned()) {
    if (!one.value.requires_grad() || present.contains(one.parameter.unsafeGetTensorImpl())) continue;
    return WithFailureKind(
        absl::FailedPreconditionError(absl::StrCat("the model's parameter '", one.name,
                                                   "' is another tensor than the one that is trained: parameters must "
                                                   "be changed in place, not assigned anew, once the runner is made")),
        FailureKind::kUserCode);
  }
  return absl::OkStatus();
}

// The file's tensor for one of the model's: under its name, or under another one of the same tensor (tied weights).
absl::Status ModelState::LoadModel(const TrainingState& state) {
  torch::NoGradGuard no_grad;
  const TensorMap& tensors = state.replicated;
  std::map<std::string, torch::Tensor> model = StateOf(*trained_->model);
  RETURN_IF_ERROR(LoadDivided(state, &model));
  std::map<const c10::TensorImpl*, std::string> given;
  for (const auto& [name, tensor] : model) {
    if (tensors.contains(absl::StrCat(kModelPrefix, name))) given.emplace(tensor.unsafeGetTensorImpl(), name);
  }
  for (const auto& [own_name, tensor] : model) {
    const auto other = given.find(tensor.unsafeGetTensorImpl());
    const bool tied = other != given.end() && !tensors.contains(absl::StrCat(kModelPrefix, own_name));
    const std::string name = absl::StrCat(kModelPrefix, tied ? other->second : own_name);
    const auto found = tensors.find(name);
    if (found == tensors.end()) return NoTensor(name);
    RETURN_IF_ERROR(CheckShape(name, found->second.sizes(), tensor.sizes()));
    RETURN_IF_ERROR(RunTorch("loading the model", [&, &target = tensor] { target.detach().copy_(found->second); }));
  }
  return absl::OkStatus();
}

// Those of the model's tensors of which this rank has parts; they are taken out of `model`.
absl::Status ModelState::LoadDivided(const TrainingState& state, std::map<std::string, torch::Tensor>* model) {
  const std::map<std::string, std::vector<std::string>> tied = TiedNames(*trained_->model);
  for (const OwnedParameter& one : trained_->strategy->owned()) {
    if (!one.divided) continue;
    std::vector<std::string> names = {one.name};
    if (const auto others = tied.find(one.name); others != tied.end())
      names.insert(names.end(), others->second.begin(), others->second.end());
    torch::Tensor found;
    for (const std::string& name : names) {
      model->erase(name);
      if (found.defined()) continue;
      ASSIGN_OR_RETURN(found, FindLike(one, absl::StrCat(kModelPrefix, name), state));
    }
    if (!found.defined()) return NoTensor(absl::StrCat(kModelPrefix, one.name));
    torch::Tensor own = one.value;
    RETURN_IF_ERROR(RunTorch("loading the model", [&] { own.copy_(found); }));
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
