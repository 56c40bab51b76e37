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
  torch::Tensor nans;            // the same: scores that are NaN. No error: the values are NaN, too

  void Add(const MaskedBatch& batch);  // does not wait for the device
  // Wait for the device.
  int64_t LabelCount() const;
  int64_t ScoreCount() const;
  absl::Status Check(MetricTask task, int64_t width) const { return Check(LabelCount(), ScoreCount(), task, width); }
  // FAILED_PRECONDITION unless both are 0.
  static absl::Status Check(int64_t labels, int64_t scores, MetricTask task, int64_t width);

  int64_t NanCount() const;
  // "unknown_labels", "outside_of_range", "nan_scores" (absent in states of earlier versions).
  void Save(TensorMap* state) const;
  static absl::StatusOr<WrongInput> Read(StateReader* reader);
};

// `count` added to a total that may be undefined or lie on another device; does not wait for the device.
void AddCount(const torch::Tensor& count, torch::Tensor* total);
int64_t NumberOf(const torch::Tensor& count);  // 0 when undefined; waits for the device
// `value`, or its shape full of NaN where `count` is above 0; an undefined count is 0, integers stay as they are. Does
// not wait for the device.
torch::Tensor NanWhere(const torch::Tensor& count, const torch::Tensor& value);
torch::Tensor CountOrZero(const torch::Tensor& count);  // int64, 0-dim

}  // namespace athanor
