// Regression metrics from a fixed number of sums, and Spearman's rank correlation from all pairs.
//
// Moments (float64 [8, outputs]): samples, mean of predictions, mean of targets, their centred squares, centred
// products, squared errors, absolute errors. Centred sums merge exactly enough at any offset (Chan, Golub & LeVeque,
// Updating formulae and a pairwise algorithm for computing sample variances, 1979); plain sums of squares do not.
//
// Results have the dtype of the predictions (float32 for half precisions) and are NaN when nothing was counted. Nothing
// here waits for the device.
#pragma once

#include <torch/torch.h>

#include "athanor/metrics/preprocess.h"

namespace athanor::metrics {

constexpr int64_t kMomentRows = 8;

torch::Tensor CountMoments(const MaskedBatch& batch, int64_t num_outputs);
// The moments of both sets of samples together. Either may be empty.
torch::Tensor MergeMoments(const torch::Tensor& a, const torch::Tensor& b);

enum class RegressionKind { kPearson, kR2, kMse, kRmse, kMae };
// Errors: one value per output (0-dim for one output). Pearson and R2: the mean over outputs, 0-dim.
// Pearson is NaN for fewer than 2 samples and for constants. R2 is NaN for fewer than 2 samples, 1 for a perfect fit,
// 0 for constant targets that are not met.
torch::Tensor RegressionOf(RegressionKind kind, const torch::Tensor& moments, torch::Dtype dtype);

// Mean over outputs of the correlation of ranks; ties share their mean rank.
torch::Tensor SpearmanOf(const MaskedBatch& batch, int64_t num_outputs);

}  // namespace athanor::metrics
