// The loaders of a run by split, with one state for all of them; and a stand-in for ranks that need no data.
//
//   DataLoaderDict loaders;
//   loaders.Set("train", std::move(train));
//   nlohmann::json state = loaders.StateDict();                 // {"train": …, "val": …}
//   RETURN_IF_ERROR(loaders.LoadStateDict(state));              // splits that are not here are passed over
//
// One thread.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/data/stateful_data_loader.h"

namespace athanor {

// As long as the loader that it stands for, in step with it, but its batches are empty and no sample is read: for ranks
// in the middle of a pipeline. Its state is the loader's, so a checkpoint fits whichever rank wrote it.
class StepProxyLoader {
 public:
  explicit StepProxyLoader(StatefulDataLoader* loader) : loader_(loader) {}  // outlives the proxy

  void StartEpoch(int64_t epoch) { loader_->StartEpoch(epoch); }
  absl::StatusOr<Batch> Next();  // size 0; OUT_OF_RANGE at the end of the epoch
  int64_t epoch() const { return loader_->epoch(); }
  int64_t batches_per_epoch() const { return loader_->batches_per_epoch(); }
  int64_t remaining() const { return loader_->remaining(); }
  nlohmann::json StateDict() const { return loader_->StateDict(); }
  absl::Status LoadStateDict(const nlohmann::json& state) { return loader_->LoadStateDict(state); }

 private:
  StatefulDataLoader* loader_;
};

class DataLoaderDict {
 public:
  void Set(const std::string& split, std::unique_ptr<StatefulDataLoader> loader);
  StatefulDataLoader* Find(const std::string& split) const;  // null: none
  // NOT_FOUND lists the splits.
  absl::StatusOr<StatefulDataLoader*> Get(const std::string& split) const;
  std::vector<std::string> splits() const;  // sorted
  bool empty() const { return loaders_.empty(); }

  nlohmann::json StateDict() const;
  // INVALID_ARGUMENT with the split in front; splits before it are then restored already.
  absl::Status LoadStateDict(const nlohmann::json& state);

 private:
  std::map<std::string, std::unique_ptr<StatefulDataLoader>> loaders_;
};

}  // namespace athanor
