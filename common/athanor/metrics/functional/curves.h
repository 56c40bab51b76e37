// Areas under the ROC and the precision-recall curve, and calibration: exact from all scores, or from counts per bin
// whose size does not depend on how much was counted.
//
// Scores are probabilities, positive and valid bool of the same shape. Nothing here waits for the device.
//
//   exact    sorts; ties are one threshold (Fawcett, An introduction to ROC analysis, 2006)
//   binned   thresholds 0, 1/(T-1), … 1; equals the exact value for scores on that grid, and differs at most by the
//            share of pairs that fall into one bin
//
// Undefined cases: AUROC is 0 when there are only positives or only negatives. Average precision without positives is
// -0 for binary tasks and labels, and NaN for a class of a multiclass task.
#pragma once

#include <torch/torch.h>

#include <cstdint>

#include "athanor/metrics/functional/confusion.h"

namespace athanor::metrics {

enum class Curve { kAuroc, kAuprc };

// What multiclass average precision is where classes are missing. kReference repeats a quirk of the reference's
// library for exact comparisons: in a batch without any label 1 recall counts as 1 for every class.
enum class MissingClass { kLeaveOut, kReference };

// One curve: scores, positive, valid (or undefined) are [N]. float64, 0-dim; NaN when nothing counts, and for average
// precision without positives.
torch::Tensor ExactArea(Curve curve, const torch::Tensor& scores, const torch::Tensor& positive,
                        const torch::Tensor& valid);

// Area over a batch of a task; float32. kMicro treats every (sample, class) pair as one binary decision. kMacro and
// kWeighted leave classes out whose area is NaN; AUROC's 0 for a missing class counts.
torch::Tensor AreaOf(Curve curve, const MaskedBatch& batch, MetricTask task, int64_t width, Average average,
                     MissingClass missing = MissingClass::kLeaveOut);

// int64 [columns, 2, bins]: negatives and positives by bin; columns: 1, classes or labels.
torch::Tensor CountCurve(const MaskedBatch& batch, MetricTask task, int64_t width, int64_t bins);
torch::Tensor BinnedAreaOf(Curve curve, const torch::Tensor& counts, MetricTask task, Average average);

// float64 [3, bins]: samples, sum of confidences, sum of hits by confidence; binary: the score and the label,
// multiclass: the highest score and whether it is the label's (Guo et al., On calibration of modern neural networks,
// 2017).
torch::Tensor CountCalibration(const MaskedBatch& batch, MetricTask task, int64_t bins);
enum class CalibrationNorm { kL1, kL2, kMax };
torch::Tensor CalibrationErrorOf(const torch::Tensor& counts, CalibrationNorm norm);

}  // namespace athanor::metrics
