// MetricFunc: a metric as data: its name, what it needs to be known about the samples, and how its value follows from
// that. Containers (stream_metrics.h, global_metrics.h) collect the needs of all their metrics and keep every kind of
// state once.
//
//   MetricFunc f1 = metrics::MulticlassF1(10);                 // functional/multiclass.h and its neighbours
//   MetricFunc top5 = metrics::MulticlassAccuracy(10, {.k = 5});
//   top5.name = "top5";
//
// Kinds of state: confusion matrices (one per k), regression moments, binned curves and calibration bins have a fixed
// size and add up; history (all scores and labels) is kept only for metrics that need it: exact AUROC and average
// precision, Spearman.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/metrics/preprocess.h"

namespace athanor {

struct MetricNeeds {
  MetricTask task = MetricTask::kNone;
  // Must agree among the metrics of a container; absent agrees with everything.
  std::optional<int64_t> num_classes, num_labels, num_outputs;
  std::optional<double> threshold;
  std::optional<int64_t> ignore_index;
  bool ignore_nothing = false;  // every label counts: contradicts an ignore_index
  // Kinds of state.
  std::set<int64_t> confusion;    // by k; 1: the top class
  std::set<int64_t> curves;       // by number of thresholds
  std::set<int64_t> calibration;  // by number of bins
  bool moments = false;
  bool history = false;

  int64_t width() const;  // classes, labels or outputs; 1 for binary
  bool bounded() const { return !history; }
  // The preprocessing that these needs imply.
  Preprocess MakePreprocess(Scores scores) const;
};

// What was seen. Samples are only there when the needs contain history.
struct MetricState {
  MaskedBatch samples;
  std::map<int64_t, torch::Tensor> confusion, curves, calibration;
  torch::Tensor moments;
  torch::Dtype dtype = torch::kFloat32;  // of the predictions; float64 results for float64 predictions

  // Bounded parts of one batch; no synchronisation.
  static MetricState Count(const MetricNeeds& needs, const MaskedBatch& batch);
  // The state before the first sample, on `device`.
  static MetricState Empty(const MetricNeeds& needs, const torch::Device& device);
  // Adds the bounded parts of `other` in place. Moments are merged, so the order of a sum shows in the last bits.
  void Add(const MetricState& other);
};

struct MetricFunc {
  std::string name;
  MetricNeeds needs;
  std::function<torch::Tensor(const MetricState&)> compute;
};

// INVALID_ARGUMENT when two metrics contradict each other; names both values.
absl::StatusOr<MetricNeeds> MergeNeeds(const std::vector<MetricFunc>& metrics);

}  // namespace athanor
