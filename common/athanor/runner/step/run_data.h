// The data of a run: its splits, the loaders that train on some of them, and those that evaluate others.
//
//   RunData data(&context, std::move(datasets));
//   RETURN_IF_ERROR(data.Open(seed));
//   RETURN_IF_ERROR(data.Reseat(members));
//   ASSIGN_OR_RETURN(StatefulDataLoader * loader, data.EvaluationLoader("val"));
//
// Not thread-safe; the training thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/data/dataset.h"
#include "athanor/data/stateful_data_loader.h"
#include "athanor/data/tolerant_dataset.h"
#include "athanor/data/train_splits.h"
#include "athanor/parallel/membership.h"
#include "athanor/runner/run_context.h"

namespace athanor {

class RunData {
 public:
  // `context` outlives this object.
  RunData(RunContext* context, std::map<std::string, std::shared_ptr<Dataset>> datasets);

  // Before all else. INVALID_ARGUMENT (kind invalid) names an option of a split that does not exist, or does not fit.
  absl::Status Open(uint64_t seed);
  // Makes the loaders for this rank's share of the data. The position stays where it is; at first it is the start.
  absl::Status Reseat(const Membership& members);

  const std::vector<std::string>& evaluated() const { return evaluated_; }
  TrainSplits& train() { return *train_; }
  const TrainSplits& train() const { return *train_; }
  // NOT_FOUND lists the splits. Of one that nobody evaluates in training it is made when it is asked for.
  absl::StatusOr<StatefulDataLoader*> EvaluationLoader(const std::string& split);
  // A rank's batches may hold fewer samples than another's.
  bool uneven_ranks() const { return uneven_ranks_; }
  bool tolerates_damage() const { return !tolerant_.empty(); }
  int64_t damaged() const;  // samples left out so far, of this rank

  // The order of the data depends on the seed: a state of another one, which was drawn, brings it along.
  absl::Status LoadPosition(const nlohmann::json& position, uint64_t seed);

 private:
  absl::Status CheckLoaderSplits() const;
  absl::Status FindEvaluated();
  std::string SplitNames() const;
  void TolerateDamage();
  absl::StatusOr<std::unique_ptr<StatefulDataLoader>> MakeLoader(const std::string& split, bool train) const;
  absl::Status MakeTrainLoaders();

  RunContext* const context_;
  Membership members_;
  uint64_t seed_ = 0;
  std::map<std::string, std::shared_ptr<Dataset>> datasets_;
  std::map<std::string, std::shared_ptr<TolerantDataset>> tolerant_;  // those with dataloader.on_damage: skip
  std::vector<std::string> evaluated_;
  std::unique_ptr<TrainSplits> train_;
  std::map<std::string, std::unique_ptr<StatefulDataLoader>> evaluation_loaders_;
  bool uneven_ranks_ = false;
};

}  // namespace athanor
