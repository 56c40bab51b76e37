// Metrics of all samples of an epoch, exactly, over all ranks.
//
//   auto metrics = *GlobalMetrics::Create({metrics::BinaryAuroc(), metrics::BinaryF1()}, {.scores = Scores::kLogits});
//   metrics->Update(logits, labels);
//   ASSIGN_OR_RETURN(MetricValues epoch, metrics->Average());
//
// Every kind of state that the metrics need is kept once (metric_func.h): counts, sums and bins have a fixed size; only
// exact curves (thresholds = 0) and Spearman keep all scores and labels. A read-out over ranks is one collective for
// the sized state, and two more when a history is kept; each sample of a history is exchanged once, not at every
// read-out. The result is kept until the next Update.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "athanor/metrics/meter_sync.h"
#include "athanor/metrics/metric_func.h"
#include "athanor/metrics/metric_set.h"

namespace athanor {

struct GlobalOptions {
  Scores scores = Scores::kProbabilities;
  std::optional<Preprocess> preprocess;  // absent: that of the metrics' task
  std::shared_ptr<MeterSync> sync;
};

class GlobalMetrics : public MetricSet {
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
  // Counts: "samples", "unknown_labels", "outside_of_range" (int64) and "float64" (bool: such scores were seen). By
  // kind of state: "confusion.<k>", "curves.<thresholds>" (int64), "calibration.<bins>", "moments" (float64). Where a
  // history is kept: "history.{input,target,valid,rows}", all samples of this rank that no read-out has exchanged, in
  // the dtypes of the batches, and "exchanged.{…}", those of all ranks that one has: each rank saves them.
  absl::StatusOr<TensorMap> StateTensors() override;
  // Samples that were exchanged do not load where there are no other ranks.
  absl::StatusOr<std::function<void()>> PlanLoad(const TensorMap& state) override;

  const MetricNeeds& needs() const { return needs_; }
  // Everything seen here so far, for metrics of one's own. Samples only when the needs contain history.
  MetricState LocalState() const;

 private:
  GlobalMetrics(std::vector<MetricFunc> metrics, MetricNeeds needs, GlobalOptions options);
  struct Saved {
    MetricState all;
    std::vector<MaskedBatch> chunks, gathered;
    torch::Tensor samples, unknown, outside;
  };
  absl::StatusOr<Saved> Read(const TensorMap& state) const;
  absl::Status CheckBatches();
  absl::StatusOr<MetricValues> Compute(const MetricState& state) const;
  // `state` of all ranks; its samples are those of this rank and are replaced by everybody's.
  absl::StatusOr<MetricState> Combine(const MetricState& state) const;
  bool alone() const { return options_.sync == nullptr || options_.sync->world_size() == 1; }

  std::vector<MetricFunc> metrics_;
  MetricNeeds needs_;
  GlobalOptions options_;
  Preprocess preprocess_;
  std::optional<MetricState> last_, all_;  // all_ without samples
  std::vector<MaskedBatch> chunks_;        // of this rank, not yet exchanged
  std::vector<MaskedBatch> gathered_;      // of all ranks
  torch::Tensor last_samples_, samples_;   // int64, 0-dim, on the device
  torch::Tensor unknown_, outside_;        // wrong labels and scores so far
  std::optional<MetricValues> average_;
};

}  // namespace athanor
