// Metrics as plain functions of one batch.
//
//   torch::Tensor accuracy = metrics::Accuracy(scores, labels);                                   // binary
//   torch::Tensor f1 = metrics::F1Score(scores, labels, {{.average = Average::kWeighted}, .num_classes = 10});
//   torch::Tensor auroc = metrics::Auroc(logits, labels, {.num_labels = 5, .scores = Scores::kLogits});
//
// The task follows from num_classes (multiclass), num_labels (multilabel) or neither (binary), unless it is given.
// Inputs are preprocessed (preprocess.h), so entries with ignore_index do not count. Results: float32 on the device of
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

namespace athanor::metrics {

struct FunctionOptions : MetricOptions {
  std::optional<MetricTask> task;
  std::optional<int64_t> num_classes, num_labels;
  Scores scores = Scores::kProbabilities;
};

torch::Tensor Accuracy(const torch::Tensor& input, const torch::Tensor& target, const FunctionOptions& options = {});
torch::Tensor Precision(const torch::Tensor& input, const torch::Tensor& target, const FunctionOptions& options = {});
torch::Tensor Recall(const torch::Tensor& input, const torch::Tensor& target, const FunctionOptions& options = {});
torch::Tensor Specificity(const torch::Tensor& input, const torch::Tensor& target, const FunctionOptions& options = {});
// Mean of recall and specificity; multiclass: mean recall, only macro and k 1.
torch::Tensor BalancedAccuracy(const torch::Tensor& input, const torch::Tensor& target,
                               const FunctionOptions& options = {});
torch::Tensor JaccardIndex(const torch::Tensor& input, const torch::Tensor& target,
                           const FunctionOptions& options = {});
torch::Tensor Iou(const torch::Tensor& input, const torch::Tensor& target, const FunctionOptions& options = {});
torch::Tensor HammingLoss(const torch::Tensor& input, const torch::Tensor& target, const FunctionOptions& options = {});
torch::Tensor FBetaScore(const torch::Tensor& input, const torch::Tensor& target, const FunctionOptions& options = {});
torch::Tensor F1Score(const torch::Tensor& input, const torch::Tensor& target, FunctionOptions options = {});
torch::Tensor Auroc(const torch::Tensor& input, const torch::Tensor& target, const FunctionOptions& options = {});
torch::Tensor Auprc(const torch::Tensor& input, const torch::Tensor& target, const FunctionOptions& options = {});
torch::Tensor Mcc(const torch::Tensor& input, const torch::Tensor& target, const FunctionOptions& options = {});
torch::Tensor CohenKappa(const torch::Tensor& input, const torch::Tensor& target, const FunctionOptions& options = {});
torch::Tensor CalibrationError(const torch::Tensor& input, const torch::Tensor& target,
                               const FunctionOptions& options = {});
torch::Tensor ConfusionMatrix(const torch::Tensor& input, const torch::Tensor& target,
                              const FunctionOptions& options = {});

}  // namespace athanor::metrics
