// What training measures between read-outs, and since the last row of results: of each split that is trained on by
// itself. One split is called "train" whatever its name is; several have their own names.
//
//   RunMeasures measures({"train"});
//   measures.Of("train").Add(output, batch.size);
//   ASSIGN_OR_RETURN(auto read, measures.ReadOut(members));       // {"train": {"loss": 0.3, "accuracy": 0.9}}
//
// Not thread-safe. ReadOut() and Rows() are collective.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/checkpoint/training_state.h"
#include "athanor/parallel/membership.h"
#include "athanor/runner/step/step_meters.h"

namespace athanor {

class RunMeasures {
 public:
  using ByName = std::map<std::string, double>;
  using BySplit = std::map<std::string, ByName>;

  explicit RunMeasures(const std::vector<std::string>& trained_splits);

  // A set for each split, fed with its StepOutput::scores and labels. `make` may give null: none.
  absl::Status MakeMetrics(const std::function<absl::StatusOr<std::unique_ptr<MetricSet>>()>& make);

  // The names of what is trained on, and the name of one of the splits among them.
  const std::vector<std::string>& names() const { return names_; }
  const std::string& NameOf(const std::string& split) const;

  // The meters of the split that is trained on now.
  StepMeters& Of(const std::string& split);
  const std::string& current() const { return current_; }

  // Reads what was added. Waits for the device when the values are not on the CPU.
  void Collect();
  // Of the losses collected so far, whichever split they are of.
  int64_t nonfinite_in_a_row() const { return meters_.at(current_).nonfinite_in_a_row(); }
  int64_t nonfinite_total() const { return meters_.at(current_).nonfinite_total(); }

  // Means since the last read-out, of the splits that were trained on since.
  absl::StatusOr<BySplit> ReadOut(const Membership& members);
  // Means since the last call of this, of the splits that were trained on since. `with_metrics`: those of the sets too.
  absl::StatusOr<BySplit> Rows(const Membership& members, bool with_metrics);

  // This rank's sums: `meters` for the rank's part of a checkpoint, tensors of the metrics into `per_rank`; and back,
  // tensors to `device`. Metrics that are of another kind than then begin anew: `remark` says so.
  absl::Status Capture(nlohmann::json* meters, TensorMap* per_rank);
  absl::Status Load(const nlohmann::json& meters, const TensorMap& per_rank, const torch::Device& device,
                    std::string* remark);

 private:
  std::string PrefixOf(const std::string& name) const;
  absl::Status LoadMetrics(const std::string& name, const TensorMap& per_rank, const torch::Device& device,
                           std::string* remark);

  std::vector<std::string> names_;
  std::map<std::string, StepMeters> meters_;  // by name
  std::string current_;
  std::set<std::string> unread_, in_row_;  // trained on since the last read-out, and since the last row; on all ranks
};

}  // namespace athanor
