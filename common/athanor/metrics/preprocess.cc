#include "athanor/metrics/preprocess.h"

#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace athanor {
namespace {

constexpr double kRounding = 1e-6;  // a softmax may end a rounding error above 1

torch::Tensor OutsideOfRange(const torch::Tensor& input, double slack) {
  return torch::logical_or(input < -slack, input > 1 + slack);
}

// Wide enough for every integer of the type that a score is likely to be.
torch::Tensor Floating(const torch::Tensor& tensor) {
  if (tensor.is_floating_point()) return tensor;
  const bool wide = tensor.element_size() >= 4 && !tensor.device().is_mps();
  return tensor.to(wide ? torch::kFloat64 : torch::kFloat32);
}

// Half precision computes in float32: its own sigmoid is 1 from 8 on.
torch::Tensor AtLeastFloat32(const torch::Tensor& tensor) {
  const bool half = tensor.scalar_type() == torch::kHalf || tensor.scalar_type() == torch::kBFloat16;
  return half ? tensor.to(torch::kFloat32) : tensor;
}

// log(p / (1 - p)) of a softmax's p, row by row, without p. 1 - p of the largest is the sum over the others; that of
// the others is no difference of nearly equal numbers.
torch::Tensor LogOdds(const torch::Tensor& logits) {
  if (logits.size(1) < 2) return torch::full_like(logits, std::numeric_limits<double>::infinity());
  const torch::Tensor wide = AtLeastFloat32(logits);
  const torch::Tensor top = wide.argmax(1, /*keepdim=*/true);
  const torch::Tensor share = wide - wide.logsumexp(1, /*keepdim=*/true);
  const torch::Tensor others =
      wide.scatter(1, top, -std::numeric_limits<double>::infinity()).logsumexp(1, /*keepdim=*/true);
  return (share - torch::log1p(-share.exp())).scatter(1, top, wide.gather(1, top) - others);
}

bool SharesStorage(const torch::Tensor& a, const torch::Tensor& b) {
  return a.defined() && b.defined() && a.has_storage() && b.has_storage() && a.is_alias_of(b);
}

}  // namespace

const char* ToString(MetricTask task) {
  switch (task) {
    case MetricTask::kBinary:
      return "binary";
    case MetricTask::kMulticlass:
      return "multiclass";
    case MetricTask::kMultilabel:
      return "multilabel";
    case MetricTask::kRegression:
      return "regression";
    case MetricTask::kNone:
      break;
  }
  return "none";
}

const char* ToString(Scores scores) {
  switch (scores) {
    case Scores::kProbabilities:
      return "probabilities";
    case Scores::kLogits:
      return "logits";
    case Scores::kDetect:
      break;
  }
  return "detect";
}

absl::StatusOr<MetricTask> ParseTask(const std::string& name) {
  const std::string lower = absl::AsciiStrToLower(name);
  for (MetricTask task :
       {MetricTask::kBinary, MetricTask::kMulticlass, MetricTask::kMultilabel, MetricTask::kRegression}) {
    if (lower == ToString(task)) return task;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("task: found '", name, "'; allowed: binary, multiclass, multilabel, regression"));
}

torch::Tensor MaskedBatch::Samples() const {
  if (rows.defined()) return rows.sum();
  const int64_t count = target.dim() == 0 ? 1 : target.size(0);
  return torch::full({}, count, torch::TensorOptions().dtype(torch::kInt64).device(target.device()));
}

torch::Tensor MaskedBatch::Ranking(MetricTask task) const {
  if (!given.defined()) return input;
  if (given_ranks) return given;
  const torch::Tensor logits = task == MetricTask::kMulticlass ? LogOdds(given) : given;
  if (!are_logits.defined()) return logits;
  // Of one batch; those of several are log-odds already (Preprocess::Kept).
  return torch::where(are_logits, logits.to(torch::kFloat64), input.to(torch::kFloat64).logit());
}

LabeledBatch MaskedBatch::Drop() const {
  if (!rows.defined()) return {input, target};
  return {input.index({rows}), target.index({rows})};
}

void MaskedBatch::ThrowIfWrong() const {
  if (outside_of_range.defined()) {
    const auto count = outside_of_range.item<int64_t>();
    TORCH_CHECK_VALUE(count == 0, "scores: ", count,
                      " lie outside 0..1 but are declared as probabilities; declare Scores::kLogits, or kDetect to "
                      "guess per batch");
  }
  if (unknown_labels.defined()) {
    const auto count = unknown_labels.item<int64_t>();
    TORCH_CHECK_VALUE(
        count == 0, "target: ", count,
        " labels are neither a class nor the index to be ignored; allowed: whole numbers 0 .. classes - 1 "
        "(0 and 1 for binary and multilabel tasks; there are no soft labels)");
  }
}

bool MaskedBatch::AliasOf(const torch::Tensor& other_input, const torch::Tensor& other_target) const {
  return SharesStorage(input, other_input) || SharesStorage(target, other_target);
}

Preprocess::Preprocess(MetricTask task, int64_t width, const PreprocessOptions& options)
    : task_(task), width_(width), options_(options) {
  TORCH_CHECK_VALUE(width > 0, ToString(task), ": found ", width, " classes, labels or outputs; allowed: 1 or more");
}

Preprocess Preprocess::Base(const PreprocessOptions& options) {
  return Preprocess(MetricTask::kNone, 1, options);
}
Preprocess Preprocess::Binary(const PreprocessOptions& options) {
  return Preprocess(MetricTask::kBinary, 1, options);
}
Preprocess Preprocess::Multiclass(int64_t num_classes, const PreprocessOptions& options) {
  return Preprocess(MetricTask::kMulticlass, num_classes, options);
}
Preprocess Preprocess::Multilabel(int64_t num_labels, const PreprocessOptions& options) {
  return Preprocess(MetricTask::kMultilabel, num_labels, options);
}
Preprocess Preprocess::Regression(int64_t num_outputs, const PreprocessOptions& options) {
  return Preprocess(MetricTask::kRegression, num_outputs, options);
}

MaskedBatch Preprocess::Apply(const torch::Tensor& input, const torch::Tensor& target) const {
  const torch::NoGradGuard no_grad;
  TORCH_CHECK_TYPE(input.defined() && target.defined(), "input and target must be tensors");
  switch (task_) {
    case MetricTask::kNone:
      return ApplyBase(input.detach(), target.detach());
    case MetricTask::kRegression:
      return ApplyRegression(input.detach(), target.detach());
    default:
      return ApplyClasses(input.detach(), target.detach());
  }
}

LabeledBatch Preprocess::ApplyAndDrop(const torch::Tensor& input, const torch::Tensor& target) const {
  return Apply(input, target).Drop();
}

MaskedBatch Preprocess::ApplyBase(const torch::Tensor& input, const torch::Tensor& target) const {
  MaskedBatch batch;
  batch.input = input;
  batch.target = target;
  if (input.numel() == target.numel()) {
    batch.input = input.squeeze();
    batch.target = target.squeeze();
  }
  if (options_.ignore_index) batch.valid = batch.target != *options_.ignore_index;
  if (options_.ignore_nan && target.is_floating_point()) {
    const torch::Tensor known = torch::isnan(batch.target).logical_not();
    batch.valid = batch.valid.defined() ? batch.valid.logical_and(known) : known;
  }
  batch.rows = batch.valid;
  return batch;
}

MaskedBatch Preprocess::ApplyClasses(const torch::Tensor& input, const torch::Tensor& target) const {
  const bool table = task_ != MetricTask::kBinary;
  TORCH_CHECK(!table || input.numel() % width_ == 0, "input: ", input.sizes(), " does not divide into rows of ", width_,
              task_ == MetricTask::kMulticlass ? " classes" : " labels");
  MaskedBatch batch;
  batch.input = Floating(table ? input.reshape({-1, width_}) : input.flatten());
  batch.target = task_ == MetricTask::kMultilabel ? target.reshape({-1, width_}) : target.flatten();
  torch::Tensor soft;  // no class, and none to be ignored: 0.7 is not 0
  if (batch.target.is_floating_point()) {
    soft = batch.target != batch.target.trunc();
    batch.target = torch::where(soft, 0, batch.target);
  }
  batch.target = batch.target.to(torch::kInt64);
  TORCH_CHECK_VALUE(batch.input.size(0) == batch.target.size(0), "input ", input.sizes(), " and target ",
                    target.sizes(), " of a ", ToString(task_), " task: ", batch.input.size(0), " and ",
                    batch.target.size(0), " samples; they must be as many");
  if (options_.ignore_index) {
    batch.valid = batch.target != *options_.ignore_index;
    if (soft.defined()) batch.valid = batch.valid.logical_or(soft);
    batch.rows = task_ == MetricTask::kMultilabel ? batch.valid.any(1) : batch.valid;
  }
  const int64_t classes = task_ == MetricTask::kMulticlass ? width_ : 2;
  torch::Tensor unknown = torch::logical_or(batch.target < 0, batch.target >= classes);
  if (soft.defined()) unknown = unknown.logical_or(soft);
  if (batch.valid.defined()) unknown = unknown.logical_and(batch.valid);
  batch.unknown_labels = unknown.sum();
  batch.valid = batch.valid.defined() ? batch.valid.logical_and(unknown.logical_not()) : unknown.logical_not();
  Activate(&batch);
  return batch;
}

void Preprocess::Activate(MaskedBatch* batch) const {
  torch::Tensor& input = batch->input;
  const auto counted = [&](const torch::Tensor& outside) {
    if (!batch->rows.defined()) return outside;
    return outside.logical_and(input.dim() == 2 ? batch->rows.unsqueeze(1) : batch->rows);
  };
  batch->nan_scores = counted(input.isnan()).sum();
  if (options_.scores == Scores::kProbabilities) {
    input = AtLeastFloat32(input);
    batch->outside_of_range = counted(OutsideOfRange(input, kRounding)).sum();
    return;
  }
  batch->given = input;
  input = Probabilities(input);
  if (options_.scores == Scores::kLogits) return;
  batch->are_logits = counted(OutsideOfRange(batch->given, 0)).any();
  input = torch::where(batch->are_logits, input, AtLeastFloat32(batch->given));
}

torch::Tensor Preprocess::Probabilities(const torch::Tensor& logits) const {
  const torch::Tensor wide = AtLeastFloat32(logits);
  return task_ == MetricTask::kMulticlass ? wide.softmax(-1) : wide.sigmoid();
}

bool Preprocess::keeps_logits() const {
  return options_.scores != Scores::kProbabilities && task_ != MetricTask::kNone && task_ != MetricTask::kRegression;
}

MaskedBatch Preprocess::Kept(MaskedBatch batch) const {
  if (!keeps_logits()) return batch;
  batch.input = options_.scores == Scores::kLogits ? batch.given : batch.Ranking(task_);
  batch.given = batch.are_logits = torch::Tensor();
  return batch;
}

MaskedBatch Preprocess::Restored(MaskedBatch kept) const {
  if (!keeps_logits()) return kept;
  kept.given = kept.input;
  if (options_.scores == Scores::kLogits) {
    kept.input = Probabilities(kept.given);
  } else {
    kept.input = kept.given.sigmoid();
    kept.given_ranks = true;
  }
  return kept;
}

torch::Tensor Preprocess::LogitsOf(const torch::Tensor& probabilities) const {
  const bool softmax = task_ == MetricTask::kMulticlass && options_.scores == Scores::kLogits;
  const torch::Tensor wide = probabilities.to(torch::kFloat64);
  return softmax ? wide.log() : wide.logit();
}

MaskedBatch Preprocess::ApplyRegression(const torch::Tensor& input, const torch::Tensor& target) const {
  TORCH_CHECK_TYPE(target.is_floating_point(), "target of a regression: found ", target.dtype(),
                   "; allowed: a floating point dtype");
  TORCH_CHECK_VALUE(input.numel() == target.numel() && input.numel() % width_ == 0, "regression with ", width_,
                    " outputs: input has ", input.numel(), " elements and target ", target.numel(),
                    "; allowed: as many, and a multiple of the outputs");
  MaskedBatch batch;
  // Half precision would round what the other side knows.
  const auto narrow = [](torch::ScalarType type) { return type == torch::kHalf || type == torch::kBFloat16; };
  const torch::ScalarType type = narrow(target.scalar_type()) ? torch::kFloat32 : target.scalar_type();
  const std::vector<int64_t> shape = width_ > 1 ? std::vector<int64_t>{-1, width_} : std::vector<int64_t>{-1};
  batch.input = input.to(type).reshape(shape);
  batch.target = target.to(type).reshape(shape);
  if (options_.ignore_nan) {
    const torch::Tensor known = torch::isnan(batch.target).logical_not();
    batch.valid = batch.rows = width_ > 1 ? known.all(1) : known;
  }
  return batch;
}

}  // namespace athanor
