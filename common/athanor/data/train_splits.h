// The training data of a run: one split, or several that are trained one after the other, round by round.
//
//   ASSIGN_OR_RETURN(auto splits, TrainSplits::Make(std::move(loaders), {.accum_steps = 2, .total_steps = 1000}));
//   while (...) {
//     ASSIGN_OR_RETURN(Batch batch, splits->Next());
//     if (++window == accum_steps || splits->pass_ends()) { ... update ...; round_over = splits->Advance(++steps); }
//     if (round_over) splits->NextRound(steps);
//   }
//
// A round of a run counted in epochs is a pass over every split, in the order of their names. A round of a run counted
// in steps gives each split its share of the updates (step_budget.h); a split whose pass ends before its share starts
// the next pass. With one split a round is its pass in both. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/data/stateful_data_loader.h"

namespace athanor {

struct TrainSplitsOptions {
  int64_t accum_steps = 1;
  int64_t total_steps = 0;  // 0: counted in epochs
};

class TrainSplits {
 public:
  // INVALID_ARGUMENT: no loader, or one without a batch (drop_last).
  static absl::StatusOr<std::unique_ptr<TrainSplits>> Make(
      std::map<std::string, std::unique_ptr<StatefulDataLoader>> loaders, TrainSplitsOptions options);

  absl::StatusOr<Batch> Next() { return current().Next(); }
  // No micro-batch is left in this pass of the split: a window must end.
  bool pass_ends() const { return current().remaining() == 0; }
  int64_t batch_size() const { return current().options().batch_size; }
  const std::string& split() const { return names_[place()]; }

  // After an attempted update, with the updates of the run so far. True: the round is over.
  bool Advance(int64_t steps);
  // `more` false: the run ends here, and no batch is made ahead.
  void NextRound(int64_t steps, bool more = true);

  int64_t updates_per_pass() const;  // of all splits together
  double fraction() const;           // of the round under way, 0 .. 1

  // With one split the state of its loader, as StatefulDataLoader's.
  nlohmann::json StateDict() const;
  absl::Status LoadStateDict(const nlohmann::json& state);

 private:
  TrainSplits(std::map<std::string, std::unique_ptr<StatefulDataLoader>> loaders, TrainSplitsOptions options);
  size_t place() const { return current_ < loaders_.size() ? current_ : loaders_.size() - 1; }
  StatefulDataLoader& current() const { return *loaders_[place()]; }
  bool by_share() const { return loaders_.size() > 1 && options_.total_steps > 0; }
  void BeginSplit(int64_t steps);

  std::vector<std::string> names_;
  std::vector<std::unique_ptr<StatefulDataLoader>> loaders_;
  TrainSplitsOptions options_;
  size_t current_ = 0;
  int64_t begin_ = 0;  // updates of the run when the split's turn came
  int64_t share_ = 0;  // updates of its turn
};

}  // namespace athanor
