// Named scalars of training steps, left on the device until somebody reads them; and the row of non-finite losses.
//
//   StepMeters meters;
//   meters.Add(output, batch.size);                    // no synchronisation, no arithmetic
//   meters.Collect();                                  // one copy from the device for everything added since
//   meters.nonfinite_in_a_row();
//   ASSIGN_OR_RETURN(auto means, meters.Means(members)); // over all ranks; collective
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/statusor.h"

#include "athanor/metrics/metric_set.h"
#include "athanor/parallel/membership.h"
#include "athanor/runner/step/step_output.h"

namespace athanor {

class StepMeters {
 public:
  // Fed with StepOutput::scores and labels from here on, and read out with the means. Its MeterSync, if it has one, is
  // over the ranks of Means().
  void SetMetrics(std::unique_ptr<MetricSet> metrics) { metrics_ = std::move(metrics); }

  // The loss and metrics of a batch of `weight` samples; the loss counts with output.weight where it is defined. Weight
  // 0: registers the names only.
  void Add(const StepOutput& output, int64_t weight);
  // Reads what was added. Waits for the device when the values are not on the CPU.
  void Collect();

  // Of the losses collected so far.
  int64_t nonfinite_in_a_row() const { return in_a_row_; }
  int64_t nonfinite_total() const { return total_; }
  // Goes on from where `before` has counted to: the row of losses is the run's.
  void CountOn(const StepMeters& before) {
    in_a_row_ = before.in_a_row_;
    total_ = before.total_;
  }

  // Weighted means and the metrics ("auroc"; of a vector "f1_0", "f1_1" …) over all ranks; forgets the
  // sums. Collective: every rank has added the same names, else INVALID_ARGUMENT on all. A name without weight anywhere
  // is NaN.
  absl::StatusOr<std::map<std::string, double>> Means(const Membership& members);
  // Weighted means of what was added since the last call of this, whatever Means() has forgotten meanwhile; and
  // `with_metrics` the metrics, which begin anew. Collective and refusing as Means().
  absl::StatusOr<std::map<std::string, double>> RowMeans(const Membership& members, bool with_metrics);
  // Forgets values and sums, keeps the names.
  void Reset();

  // The sums since the last read-out and the counts of losses that were not finite, of this rank; and back. Waits as
  // Collect() does. DATA_LOSS for what StateDict() has not made. The metrics' own state is not in it:
  // metrics()->StateTensors().
  nlohmann::json StateDict();
  absl::Status LoadStateDict(const nlohmann::json& state);
  MetricSet* metrics() { return metrics_.get(); }

 private:
  struct Sum {
    double sum = 0;
    double weight = 0;
  };
  struct Meter {
    Sum read_out, row;  // since the last Means(), and since the last RowMeans()
  };
  struct Entry {
    Meter* meter;
    torch::Tensor value;
    double weight;
    torch::Tensor own_weight;  // instead, read with the value
    bool is_loss;
  };
  void AddValue(const std::string& name, const torch::Tensor& value, int64_t weight, const torch::Tensor& own_weight,
                bool is_loss);
  absl::StatusOr<std::map<std::string, double>> TakeMeans(Sum Meter::* which, const Membership& members);
  absl::Status ReadMetrics(std::map<std::string, double>* means);

  std::map<std::string, Meter> meters_;  // stable addresses
  std::vector<Entry> pending_;
  std::unique_ptr<MetricSet> metrics_;
  int64_t in_a_row_ = 0;
  int64_t total_ = 0;
};

}  // namespace athanor
