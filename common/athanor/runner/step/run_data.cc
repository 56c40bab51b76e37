#include "athanor/runner/step/run_data.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/derived_options.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

absl::Status Invalid(const absl::Status& status) {
  return status.ok() ? status : WithFailureKind(status, FailureKind::kInvalid);
}

}  // namespace

RunData::RunData(RunContext* context, std::map<std::string, std::shared_ptr<Dataset>> datasets)
    : context_(context), members_(context->members), datasets_(std::move(datasets)) {}

absl::Status RunData::Open(uint64_t seed) {
  seed_ = seed;
  RETURN_IF_ERROR(Invalid(CheckLoaderSplits()));
  RETURN_IF_ERROR(Invalid(FindEvaluated()));
  TolerateDamage();
  return absl::OkStatus();
}

absl::Status RunData::Reseat(const Membership& members) {
  members_ = members;
  uneven_ranks_ = false;
  for (const std::string& split : TrainSplitNames(context_->config)) {
    const auto found = datasets_.find(split);
    uneven_ranks_ = uneven_ranks_ || (members.several() && found != datasets_.end() && found->second->may_leave_out());
  }
  const nlohmann::json position = train_ == nullptr ? nlohmann::json() : train_->StateDict();
  RETURN_IF_ERROR(MakeTrainLoaders());
  evaluation_loaders_.clear();
  for (const std::string& name : evaluated_) {
    ASSIGN_OR_RETURN(evaluation_loaders_[name], MakeLoader(name, /*train=*/false));
  }
  return position.is_null() ? absl::OkStatus() : train_->LoadStateDict(position);
}

absl::Status RunData::CheckLoaderSplits() const {
  const std::vector<std::string> train = TrainSplitNames(context_->config);
  for (const auto& [split, options] : context_->config.dataloader.splits) {
    if (!datasets_.contains(split)) {
      return absl::InvalidArgumentError(
          absl::StrCat("dataloader.", split, ": no such split; the splits are: ", SplitNames()));
    }
    if (std::find(train.begin(), train.end(), split) != train.end()) continue;
    if (options.shuffle.value_or(false) || options.drop_last.value_or(false)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "dataloader.", split, options.shuffle.value_or(false) ? ".shuffle" : ".drop_last",
          ": found true; allowed: false, since the split is only evaluated: every sample of it, in order"));
    }
  }
  return absl::OkStatus();
}

absl::Status RunData::FindEvaluated() {
  evaluated_ = context_->config.evaluate.splits;
  for (const std::string& split : evaluated_) {
    if (datasets_.contains(split)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("evaluate.splits: no split '", split, "'; the splits are: ", SplitNames()));
  }
  if (!evaluated_.empty()) return absl::OkStatus();
  const std::vector<std::string> train = TrainSplitNames(context_->config);
  for (const auto& [name, dataset] : datasets_) {
    if (std::find(train.begin(), train.end(), name) == train.end()) evaluated_.push_back(name);
  }
  return absl::OkStatus();
}

std::string RunData::SplitNames() const {
  std::string names;
  for (const auto& [name, dataset] : datasets_) absl::StrAppend(&names, names.empty() ? "" : ", ", name);
  return names;
}

void RunData::TolerateDamage() {
  for (auto& [name, dataset] : datasets_) {
    const DataLoaderConfig config = context_->config.dataloader.For(name);
    if (config.on_damage != "skip") continue;
    tolerant_[name] = std::make_shared<TolerantDataset>(dataset, TolerantOptions{.max_damaged = config.max_damaged});
    dataset = tolerant_[name];
  }
}

int64_t RunData::damaged() const {
  int64_t damaged = 0;
  for (const auto& [name, dataset] : tolerant_) damaged += dataset->report().damaged;
  return damaged;
}

absl::StatusOr<std::unique_ptr<StatefulDataLoader>> RunData::MakeLoader(const std::string& split, bool train) const {
  const DataLoaderConfig config = context_->config.dataloader.For(split);
  LoaderOptions options;
  options.batch_size = config.batch_size;
  options.shuffle = train && config.shuffle.value_or(true);
  options.drop_last = train && config.drop_last;
  options.num_workers = static_cast<int>(config.num_workers);
  options.prefetch_factor = static_cast<int>(config.prefetch_factor);
  options.in_order = config.in_order;
  options.persistent_workers = config.persistent_workers;
  options.snapshot_every_n_steps = config.snapshot_every_n_steps;
  options.pin_memory = config.pin_memory.value_or(context_->device.is_cuda());
  options.timeout = config.timeout;
  options.seed = config.seed.has_value() ? static_cast<uint64_t>(*config.seed) : seed_;
  options.world_size = members_.data_parallel_size();
  options.rank = members_.data_parallel_rank();
  options.padding = train ? SamplerPadding::kRepeat : SamplerPadding::kNone;
  absl::StatusOr<std::unique_ptr<StatefulDataLoader>> loader = StatefulDataLoader::Make(datasets_.at(split), options);
  if (!loader.ok()) return Invalid(Annotate(loader.status(), absl::StrCat("dataloader '", split, "'")));
  return loader;
}

absl::Status RunData::MakeTrainLoaders() {
  std::map<std::string, std::unique_ptr<StatefulDataLoader>> loaders;
  for (const std::string& split : TrainSplitNames(context_->config)) {
    ASSIGN_OR_RETURN(loaders[split], MakeLoader(split, /*train=*/true));
  }
  auto splits = TrainSplits::Make(std::move(loaders), {.accum_steps = context_->config.accum_steps,
                                                       .total_steps = context_->config.steps.value_or(0)});
  if (!splits.ok()) return Invalid(splits.status());
  train_ = *std::move(splits);
  return absl::OkStatus();
}

absl::StatusOr<StatefulDataLoader*> RunData::EvaluationLoader(const std::string& split) {
  if (!datasets_.contains(split))
    return absl::NotFoundError(absl::StrCat("no split '", split, "'; the splits are: ", SplitNames()));
  std::unique_ptr<StatefulDataLoader>& loader = evaluation_loaders_[split];
  if (loader == nullptr) {
    ASSIGN_OR_RETURN(loader, MakeLoader(split, /*train=*/false));
  }
  return loader.get();
}

absl::Status RunData::LoadPosition(const nlohmann::json& position, uint64_t seed) {
  if (seed != seed_) {
    seed_ = seed;
    RETURN_IF_ERROR(MakeTrainLoaders());
  }
  return train_->LoadStateDict(position);
}

}  // namespace athanor
