// Labels and scores that a task does not know, counted on the device and named by the next read-out. Internal to the
// containers of metrics.
#pragma once

#include <torch/torch.h>

#include <cstdint>

#include "absl/status/status.h"
#include "athanor/metrics/metric_values.h"
#include "athanor/metrics/preprocess.h"

namespace athanor {

class StateReader;

struct WrongInput {
  torch::Tensor labels, scores;  // int64, 0-dim; undefined: none

  void Add(const MaskedBatch& batch);  // does not wait for the device
  // Wait for the device.
  int64_t LabelCount() const;
  int64_t ScoreCount() const;
  absl::Status Check(MetricTask task, int64_t width) const { return Check(LabelCount(), ScoreCount(), task, width); }
  // FAILED_PRECONDITION unless both are 0.
  static absl::Status Check(int64_t labels, int64_t scores, MetricTask task, int64_t width);

  // "unknown_labels", "outside_of_range".
  void Save(TensorMap* state) const;
  static absl::StatusOr<WrongInput> Read(StateReader* reader);
};

// `count` added to a total that may be undefined or lie on another device; does not wait for the device.
void AddCount(const torch::Tensor& count, torch::Tensor* total);
int64_t NumberOf(const torch::Tensor& count);           // 0 when undefined; waits for the device
torch::Tensor CountOrZero(const torch::Tensor& count);  // int64, 0-dim

}  // namespace athanor
