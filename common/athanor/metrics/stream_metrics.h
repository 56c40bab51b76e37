// Metrics of each batch, averaged over the batches by their samples. Little memory and nothing to wait for; for metrics
// that do not add up over batches (AUROC, F1, MCC, R2, RMSE …) the mean of batches is not the value of all samples: use
// GlobalMetrics when that matters.
//
//   auto metrics = *StreamMetrics::Create({metrics::BinaryAccuracy(), {"bias", bias}});   // bias: a BatchFunction
//   metrics->Update(scores, labels);
//   metrics->Text();                                  // "acc: 0.7500 (0.8125)\tbias: …"
//
// A batch whose value is NaN (an AUROC of one class, an empty batch) shows in Value() and does not count in the means;
// elsewhere it would spoil the rest of the epoch.
//
// Update does not wait for the device for descriptors. A function of a batch gets a selection of what counts, and the
// selection waits where something may be left out.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "athanor/metrics/average_meter.h"
#include "athanor/metrics/metric_func.h"
#include "athanor/metrics/metric_set.h"
#include "athanor/metrics/rank_exchange.h"
#include "athanor/metrics/wrong_input.h"

namespace athanor {

// A function of one batch: predictions and targets without the entries that do not count.
using BatchFunction = std::function<torch::Tensor(const torch::Tensor&, const torch::Tensor&)>;

class StreamMetric {
 public:
  StreamMetric(MetricFunc metric) : metric_(std::move(metric)) {}  // NOLINT(google-explicit-constructor)
  StreamMetric(std::string name, BatchFunction function) : metric_(std::pair(std::move(name), std::move(function))) {}

  const std::string& name() const;
  const MetricFunc* descriptor() const { return std::get_if<MetricFunc>(&metric_); }
  const BatchFunction* function() const;

 private:
  std::variant<MetricFunc, std::pair<std::string, BatchFunction>> metric_;
};

struct StreamOptions {
  Preprocess preprocess;  // default: none of its own; that of the descriptors' task when they have one
  bool preprocess_given = false;
  Scores scores = Scores::kProbabilities;
  std::shared_ptr<MeterSync> sync;
};

class StreamMetrics : public MetricSet, private JointReadOut {
 public:
  // The first metric of a name wins. INVALID_ARGUMENT for none, for one without a function, and for descriptors that
  // contradict each other.
  static absl::StatusOr<std::unique_ptr<StreamMetrics>> Create(std::vector<StreamMetric> metrics,
                                                               StreamOptions options = {});
  using MetricSet::Update;
  void Update(const torch::Tensor& input, const torch::Tensor& target) override;

  absl::StatusOr<MetricValues> Value() override;
  absl::StatusOr<MetricValues> Batch() override;
  absl::StatusOr<MetricValues> Average() override;
  absl::StatusOr<int64_t> Samples(bool of_batch, bool ranks) override;
  absl::StatusOr<std::vector<torch::Tensor>> Weights(bool of_batch, bool ranks) override;
  absl::StatusOr<std::string> Text(int decimals = 4) override;
  void Reset() override;
  // "<metric>.sum", "<metric>.count": sums of the batches' values by their samples (AverageMeters); "unknown_labels",
  // "outside_of_range", "nan_scores" (int64).
  absl::StatusOr<TensorMap> StateTensors() override;
  absl::StatusOr<std::function<void()>> PlanLoad(const TensorMap& state) override;
  JointReadOut* joint() override { return this; }
  const AverageMeters& meters() const { return meters_; }

 private:
  friend absl::StatusOr<std::unique_ptr<StreamMetrics>> MetricMeter(StreamMetric metric, StreamOptions options);
  StreamMetrics(std::vector<StreamMetric> metrics, MetricNeeds needs, StreamOptions options);
  bool alone() const { return options_.sync == nullptr || options_.sync->world_size() == 1; }
  MeterSync* sync() const override { return options_.sync.get(); }
  RankPart PartFor(ReadOut of) override;
  absl::StatusOr<JointValues> FromParts(ReadOut of, const std::vector<RankPart>& parts) override;

  std::vector<StreamMetric> metrics_;
  MetricNeeds needs_;
  StreamOptions options_;
  bool functions_ = false;
  bool nameless_ = false;  // a meter by itself
  WrongInput wrong_;
  AverageMeters meters_;
};

using MetricMeters = StreamMetrics;  // the reference has two names

// One metric by itself, in the form of the others; its text has no name: "0.7500 (0.8125)".
absl::StatusOr<std::unique_ptr<StreamMetrics>> MetricMeter(StreamMetric metric, StreamOptions options = {});

}  // namespace athanor
