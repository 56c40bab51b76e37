// Confusion matrices and everything that follows from them.
//
// Shapes (int64, rows = target, columns = prediction): binary [2, 2], multiclass [C, C], multilabel [L, 2, 2].
// Results are float32 on the matrix' device. No function here waits for the device.
//
// Definitions: Sokolova & Lapalme, A systematic analysis of performance measures for classification tasks, 2009;
// Matthews 1975; Cohen 1960.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "athanor/metrics/preprocess.h"

namespace athanor::metrics {

// kMacro: mean over classes (multiclass: over those that occur in targets or predictions); kWeighted: by support;
// kMicro: over all decisions at once; kNone: a vector.
enum class Average { kMacro, kMicro, kWeighted, kNone };
absl::StatusOr<Average> ParseAverage(const std::string& name);

enum class Ratio {
  kAccuracy,
  kPrecision,
  kRecall,
  kSpecificity,
  kBalancedAccuracy,
  kJaccard,
  kHammingLoss,
  kFBeta,
};

// Counts a batch of the given task. A score is positive when it is greater than `threshold` (binary, multilabel); with
// k > 1 (multiclass) a sample counts as predicted right when its label is among the k highest scores, else as its top
// score.
torch::Tensor CountConfusion(const MaskedBatch& batch, MetricTask task, int64_t width, double threshold, int64_t k = 1);

// Denominators are at least 1, so 0 / 0 is 0; NaN (or a vector of NaN) when nothing was counted.
torch::Tensor RatioOf(Ratio ratio, const torch::Tensor& confusion, MetricTask task, Average average, double beta = 1);

// In -1..1; multilabel matrices are added up. 0 when a class is constant (binary: the limit for vanishing counts).
torch::Tensor MatthewsCorrelation(const torch::Tensor& confusion);

enum class KappaWeights { kNone, kLinear, kQuadratic };
// Agreement beyond chance. NaN when targets and predictions are the same constant. Not for multilabel.
torch::Tensor KappaOf(const torch::Tensor& confusion, KappaWeights weights);

enum class Normalize { kNone, kTarget, kPrediction, kAll };
// The matrix as shares, float32 (int64 for kNone); a row or column without counts is 0.
torch::Tensor NormalizeConfusion(const torch::Tensor& confusion, Normalize normalize);

}  // namespace athanor::metrics
