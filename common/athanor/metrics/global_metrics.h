// Metrics of all samples of an epoch, exactly, over all ranks.
//
//   auto metrics = *GlobalMetrics::Create({metrics::BinaryAuroc(), metrics::BinaryF1()}, {.scores = Scores::kLogits});
//   metrics->Update(logits, labels);
//   ASSIGN_OR_RETURN(MetricValues epoch, metrics->Average());
//
// Every kind of state that the metrics need is kept once (metric_func.h): counts, sums and bins have a fixed size; only
// exact curves (thresholds = 0) and Spearman keep all scores and labels, each rank its own.
//
// Ranks: a read-out is one exchange; a second one follows where some rank has more than some kilobytes to give (a
// history, matrices of many classes). Rows travel in their own dtypes and are dropped when the values are computed: no
// rank keeps those of others. Values are computed on the device of the MeterSync, from the same bits on every rank, and
// kept until some rank has an update. Errors, other names or options on some rank, and ranks without samples (also
// where others have float64) end alike on all ranks.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "athanor/metrics/meter_sync.h"
#include "athanor/metrics/metric_func.h"
#include "athanor/metrics/metric_set.h"
#include "athanor/metrics/rank_exchange.h"
#include "athanor/metrics/wrong_input.h"

namespace athanor {

struct GlobalOptions {
  Scores scores = Scores::kProbabilities;
  std::optional<Preprocess> preprocess;  // absent: that of the metrics' task
  std::shared_ptr<MeterSync> sync;
};

class GlobalMetrics : public MetricSet, private JointReadOut {
 public:
  // INVALID_ARGUMENT for no metric, and for metrics that contradict each other (names both values).
  static absl::StatusOr<std::unique_ptr<GlobalMetrics>> Create(std::vector<MetricFunc> metrics,
                                                               GlobalOptions options = {});
  using MetricSet::Update;
  void Update(const torch::Tensor& input, const torch::Tensor& target) override;

  absl::StatusOr<MetricValues> Value() override;
  absl::StatusOr<MetricValues> Batch() override;
  absl::StatusOr<MetricValues> Average() override;
  absl::StatusOr<int64_t> Samples(bool of_batch, bool ranks) override;
  absl::StatusOr<std::string> Text(int decimals = 4) override;
  void Reset() override;
  // Counts: "samples", "unknown_labels", "outside_of_range", "nan_scores" (int64) and "float64" (bool: such scores were
  // seen). By kind of state: "confusion.<k>", "curves.<thresholds>" (int64), "calibration.<bins>", "moments" (float64).
  // Where a history is kept: "history.{input,target,valid,rows}", the samples of this rank in the dtypes of the
  // batches; "history.logits" in place of input where scores may be logits.
  absl::StatusOr<TensorMap> StateTensors() override;
  absl::StatusOr<std::function<void()>> PlanLoad(const TensorMap& state) override;

  const MetricNeeds& needs() const { return needs_; }
  // Everything seen here so far, for metrics of one's own. Samples only when the needs contain history.
  MetricState LocalState() const;
  // Everything seen on all ranks, those in order: `samples.input` and `samples.target` (scores and labels, with `valid`
  // and `rows` saying what counts), `confusion.at(1)` … as the needs have it. A collective, with the errors of
  // Average(). The same on every rank, and not kept here.
  absl::StatusOr<MetricState> SyncedState();
  JointReadOut* joint() override { return this; }

 private:
  GlobalMetrics(std::vector<MetricFunc> metrics, MetricNeeds needs, GlobalOptions options);
  struct Saved {
    MetricState all;
    std::vector<MaskedBatch> chunks;
    torch::Tensor samples;
    WrongInput wrong;
  };
  absl::StatusOr<Saved> Read(const TensorMap& state) const;
  // States inside of this class have their samples as Preprocess::Kept() gives them.
  absl::StatusOr<MetricValues> Compute(const MetricState& kept, const torch::Tensor& nans) const;
  MetricState Restored(MetricState kept) const;
  MetricState KeptState() const;
  const WrongInput& WrongOf(ReadOut of) const { return of == ReadOut::kBatch ? last_wrong_ : wrong_; }
  MetricState StateOf(ReadOut of);
  MeterSync* sync() const override { return options_.sync.get(); }
  RankPart PartFor(ReadOut of) override;
  absl::StatusOr<JointValues> FromParts(ReadOut of, const std::vector<RankPart>& parts) override;
  absl::Status CheckParts(const std::vector<RankPart>& parts) const;
  absl::StatusOr<MetricState> Merge(const std::vector<RankPart>& parts) const;
  bool alone() const { return options_.sync == nullptr || options_.sync->world_size() == 1; }

  std::vector<MetricFunc> metrics_;
  MetricNeeds needs_;
  GlobalOptions options_;
  Preprocess preprocess_;
  std::string what_;                       // what the ranks must have in common
  std::optional<MetricState> last_, all_;  // all_ without samples
  std::vector<MaskedBatch> chunks_;        // the history
  torch::Tensor last_samples_, samples_;   // int64, 0-dim, on the device
  WrongInput wrong_, last_wrong_;          // of everything; of the last batch
  std::optional<MetricValues> average_;
};

}  // namespace athanor
