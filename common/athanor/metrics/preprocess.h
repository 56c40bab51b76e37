// How a batch becomes what metrics count: shapes, entries to leave out, logits to probabilities.
//
//   Preprocess preprocess = Preprocess::Multiclass(10, {.scores = Scores::kLogits});
//   MaskedBatch batch = preprocess.Apply(logits, labels);   // [N, 10], [N], which entries count; no synchronisation
//   LabeledBatch dropped = preprocess.ApplyAndDrop(logits, labels);  // without the entries that do not count
//
// What counts is a mask, not a selection: selecting waits for the device. Containers keep masks, and look at the two
// counters of MaskedBatch when somebody reads a value.
//
// Scores are declared. kProbabilities that lie outside 0..1 and labels that do not exist are counted on the device; the
// functions of functional.h throw for them, containers return FAILED_PRECONDITION from the next read-out. kDetect is
// the guess per batch that other libraries make: a batch with any score outside 0..1 counts as logits as a whole, so
// logits that happen to lie in 0..1 are taken for probabilities.
//
// NaN among the scores that count makes every value NaN that they go into. Integer scores of 32 and 64 bits are
// computed in float64, float16 and bfloat16 in float32.
//
// Errors: c10::ValueError (sizes), c10::TypeError (dtypes).
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace athanor {

enum class MetricTask { kNone, kBinary, kMulticlass, kMultilabel, kRegression };
enum class Scores { kProbabilities, kLogits, kDetect };

const char* ToString(MetricTask task);
const char* ToString(Scores scores);  // "probabilities", "logits", "detect"
// "binary", "multiclass", "multilabel" or "regression", in any case.
absl::StatusOr<MetricTask> ParseTask(const std::string& name);

struct LabeledBatch {
  torch::Tensor input, target;
};

// Shapes by task: binary [N], [N]; multiclass [N, C], [N]; multilabel [N, L], [N, L]; regression [N] or [N, outputs]
// both; none: what came in. `valid` (bool) has the shape of `target`, rows for regression; undefined: everything
// counts.
struct MaskedBatch {
  torch::Tensor input, target, valid;
  torch::Tensor rows;              // bool [N]: samples that count; undefined: all
  torch::Tensor unknown_labels;    // int64, 0-dim; undefined: not looked for
  torch::Tensor outside_of_range;  // int64, 0-dim: scores declared as probabilities outside 0..1
  torch::Tensor nan_scores;        // int64, 0-dim: scores that count and are NaN; undefined: not looked for
  // The scores as they came, where `input` was made of them. A probability of 1 - 1e-20 is 1 as a float: what ranks
  // scores, or looks for the largest, takes these.
  torch::Tensor given;
  torch::Tensor are_logits;  // bool, 0-dim: whether those were taken for logits; undefined: they were
  bool given_ranks = false;  // they are log-odds

  // Samples that count, int64 0-dim on the batch's device.
  torch::Tensor Samples() const;
  // Scores in the order of `input` that do not run into 0 and 1: logits (binary, multilabel), log-odds (multiclass).
  torch::Tensor Ranking(MetricTask task) const;
  LabeledBatch Drop() const;  // waits for the device when something is left out
  // Throws c10::ValueError when one of the counters is not 0. Waits for the device.
  void ThrowIfWrong() const;
  bool AliasOf(const torch::Tensor& input, const torch::Tensor& target) const;
};

struct PreprocessOptions {
  std::optional<int64_t> ignore_index = -100;  // labels that do not count; not for regression
  bool ignore_nan = true;                      // targets that are NaN do not count; regression and Base() only
  Scores scores = Scores::kProbabilities;
};

class Preprocess {
 public:
  Preprocess() = default;  // Base({.ignore_index = std::nullopt, .ignore_nan = false})
  // Leaves scores alone; squeezes both when they have as many elements.
  static Preprocess Base(const PreprocessOptions& options);
  static Preprocess Binary(const PreprocessOptions& options = {});
  static Preprocess Multiclass(int64_t num_classes, const PreprocessOptions& options = {});
  static Preprocess Multilabel(int64_t num_labels, const PreprocessOptions& options = {});
  static Preprocess Regression(int64_t num_outputs = 1, const PreprocessOptions& options = {});

  // Detached. Never waits for the device.
  MaskedBatch Apply(const torch::Tensor& input, const torch::Tensor& target) const;
  LabeledBatch ApplyAndDrop(const torch::Tensor& input, const torch::Tensor& target) const;

  // A batch as it is kept for later, alone or joined with others: where scores may be logits, `input` has them in place
  // of probabilities; and back. The way back gives the same bits, but for kDetect, which keeps log-odds in float64.
  bool keeps_logits() const;
  MaskedBatch Kept(MaskedBatch batch) const;
  MaskedBatch Restored(MaskedBatch kept) const;
  // What Kept() would have made of probabilities.
  torch::Tensor LogitsOf(const torch::Tensor& probabilities) const;

  MetricTask task() const { return task_; }
  int64_t width() const { return width_; }  // classes, labels or outputs
  const PreprocessOptions& options() const { return options_; }

 private:
  Preprocess(MetricTask task, int64_t width, const PreprocessOptions& options);
  MaskedBatch ApplyBase(const torch::Tensor& input, const torch::Tensor& target) const;
  MaskedBatch ApplyClasses(const torch::Tensor& input, const torch::Tensor& target) const;
  MaskedBatch ApplyRegression(const torch::Tensor& input, const torch::Tensor& target) const;
  void Activate(MaskedBatch* batch) const;
  torch::Tensor Probabilities(const torch::Tensor& logits) const;

  MetricTask task_ = MetricTask::kNone;
  int64_t width_ = 1;
  PreprocessOptions options_{.ignore_index = std::nullopt, .ignore_nan = false};
};

}  // namespace athanor
