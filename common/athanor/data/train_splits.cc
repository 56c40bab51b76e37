#include "athanor/data/train_splits.h"

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/data/step_budget.h"

namespace athanor {

TrainSplits::TrainSplits(std::map<std::string, std::unique_ptr<StatefulDataLoader>> loaders, TrainSplitsOptions options)
    : options_(options) {
  for (auto& [name, loader] : loaders) {
    names_.push_back(name);
    loaders_.push_back(std::move(loader));
  }
  BeginSplit(0);
}

absl::StatusOr<std::unique_ptr<TrainSplits>> TrainSplits::Make(
    std::map<std::string, std::unique_ptr<StatefulDataLoader>> loaders, TrainSplitsOptions options) {
  if (loaders.empty()) return absl::InvalidArgumentError("training data: no split");
  for (const auto& [name, loader] : loaders) {
    if (loader->batches_per_epoch() == 0)
      return absl::InvalidArgumentError(
          absl::StrCat("training data: drop_last leaves no batch in the split '", name, "'"));
  }
  return std::unique_ptr<TrainSplits>(new TrainSplits(std::move(loaders), options));
}

void TrainSplits::BeginSplit(int64_t steps) {
  begin_ = steps;
  share_ = SplitStepBudget(options_.total_steps - steps, static_cast<int64_t>(loaders_.size() - place()),
                           current().batches_per_epoch(), options_.accum_steps);
}

bool TrainSplits::Advance(int64_t steps) {
  if (!by_share()) {
    if (!pass_ends()) return false;
    ++current_;
    return current_ >= loaders_.size();
  }
  if (pass_ends()) current().StartEpoch(current().epoch() + 1, /*prefetch=*/steps < options_.total_steps);
  if (steps - begin_ < share_) return false;
  ++current_;
  if (current_ >= loaders_.size()) return true;
  BeginSplit(steps);
  return false;
}

void TrainSplits::NextRound(int64_t steps, bool more) {
  current_ = 0;
  if (by_share()) {
    BeginSplit(steps);
    return;
  }
  for (const auto& loader : loaders_) loader->StartEpoch(loader->epoch() + 1, more);
}

int64_t TrainSplits::updates_per_pass() const {
  int64_t updates = 0;
  for (const auto& loader : loaders_)
    updates += (loader->batches_per_epoch() + options_.accum_steps - 1) / options_.accum_steps;
  return updates;
}

double TrainSplits::fraction() const {
  int64_t left = 0, whole = 0;
  for (const auto& loader : loaders_) {
    left += loader->remaining();
    whole += loader->batches_per_epoch();
  }
  // After a restore onto another number of ranks the pass is shorter or longer than a whole one counts here.
  const double share = static_cast<double>(left) / static_cast<double>(whole);
  return share >= 1.0 || share <= 0.0 ? 0.0 : 1.0 - share;
}

nlohmann::json TrainSplits::StateDict() const {
  if (loaders_.size() == 1) return loaders_.front()->StateDict();
  nlohmann::json states = nlohmann::json::object();
  for (size_t i = 0; i < loaders_.size(); ++i) states[names_[i]] = loaders_[i]->StateDict();
  return {{"splits", states}, {"current", place()}, {"begin", begin_}, {"share", share_}};
}

absl::Status TrainSplits::LoadStateDict(const nlohmann::json& state) {
  if (loaders_.size() == 1) return loaders_.front()->LoadStateDict(state);
  try {
    const nlohmann::json& states = state.at("splits");
    const auto current = state.at("current").get<size_t>();
    const auto begin = state.at("begin").get<int64_t>(), share = state.at("share").get<int64_t>();
    if (current >= loaders_.size() || states.size() != loaders_.size())
      return absl::InvalidArgumentError("training data: the state is of other splits");
    for (size_t i = 0; i < loaders_.size(); ++i)
      RETURN_IF_ERROR(Annotate(loaders_[i]->LoadStateDict(states.at(names_[i])), absl::StrCat("split ", names_[i])));
    current_ = current;
    begin_ = begin;
    share_ = share;
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("training data: the state is of other splits: ", error.what()));
  }
  return absl::OkStatus();
}

}  // namespace athanor
