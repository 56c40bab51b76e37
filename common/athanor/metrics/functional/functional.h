// Metrics as plain functions of one batch.
//
//   torch::Tensor accuracy = metrics::Accuracy(scores, labels);                                   // binary
//   torch::Tensor f1 = metrics::F1Score(scores, labels, {{.average = Average::kWeighted}, .num_classes = 10});
//   torch::Tensor auroc = metrics::Auroc(logits, labels, {.num_labels = 5, .scores = Scores::kLogits});
//
// The task follows from num_classes (multiclass), num_labels (multilabel) or neither (binary), unless it is given.
// Inputs are tensors or ragged batches, aligned by their lengths (PackedPair of metric_set.h), then preprocessed
// (preprocess.h), so entries with ignore_index do not count. Results: float32 on the device of
// the inputs, 0-dim, or a vector for Average::kNone. These functions read counters from the device; for values per step
// use the containers, which do not.
//
// Errors: c10::ValueError for options, sizes, labels that do not exist, and scores outside 0..1 unless they are
// declared otherwise.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <optional>

#include "athanor/metrics/functional/options.h"
#include "athanor/nested/tensor.h"

namespace athanor::metrics {

struct FunctionOptions : MetricOptions {
  std::optional<MetricTask> task;
  std::optional<int64_t> num_classes, num_labels;
  Scores scores = Scores::kProbabilities;
};

torch::Tensor Accuracy(const NestedValue& input, const NestedValue& target, const FunctionOptions& options = {});
torch::Tensor Precision(const NestedValue& input, const NestedValue& target, const FunctionOptions& options = {});
torch::Tensor Recall(const NestedValue& input, const NestedValue& target, const FunctionOptions& options = {});
torch::Tensor Specificity(const NestedValue& input, const NestedValue& target, const FunctionOptions& options = {});
// Mean of recall and specificity; multiclass: mean recall, only macro and k 1.
torch::Tensor BalancedAccuracy(const NestedValue& input, const NestedValue& target,
                               const FunctionOptions& options = {});
torch::Tensor JaccardIndex(const NestedValue& input, const NestedValue& target, const FunctionOptions& options = {});
torch::Tensor Iou(const NestedValue& input, const NestedValue& target, const FunctionOptions& options = {});
torch::Tensor HammingLoss(const NestedValue& input, const NestedValue& target, const FunctionOptions& options = {});
torch::Tensor FBetaScore(const NestedValue& input, const NestedValue& target, const FunctionOptions& options = {});
torch::Tensor F1Score(const NestedValue& input, const NestedValue& target, FunctionOptions options = {});
torch::Tensor Auroc(const NestedValue& input, const NestedValue& target, const FunctionOptions& options = {});
torch::Tensor Auprc(const NestedValue& input, const NestedValue& target, const FunctionOptions& options = {});
torch::Tensor Mcc(const NestedValue& input, const NestedValue& target, const FunctionOptions& options = {});
torch::Tensor CohenKappa(const NestedValue& input, const NestedValue& target, const FunctionOptions& options = {});
torch::Tensor CalibrationError(const NestedValue& input, const NestedValue& target,
                               const FunctionOptions& options = {});
torch::Tensor ConfusionMatrix(const NestedValue& input, const NestedValue& target, const FunctionOptions& options = {});

}  // namespace athanor::metrics
