#include "athanor/metrics/functional/confusion.h"

#include <limits>

#include "absl/strings/str_cat.h"

namespace athanor::metrics {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Histogram of index (int64, any shape) over `bins`; what is not valid does not count. torch::bincount would wait for
// the device.
torch::Tensor CountInto(torch::Tensor index, const torch::Tensor& valid, int64_t bins) {
  if (valid.defined()) index = torch::where(valid, index, bins);
  const auto options = torch::TensorOptions().dtype(torch::kInt64).device(index.device());
  return torch::zeros({bins + 1}, options)
      .index_add_(0, index.flatten(), torch::ones({1}, options).expand({index.numel()}))
      .narrow(0, 0, bins);
}

torch::Tensor PredictedClass(const MaskedBatch& batch, int64_t k) {
  const torch::Tensor& scores = batch.given.defined() ? batch.given : batch.input;
  if (k == 1) return scores.argmax(1);
  const torch::Tensor top = std::get<1>(scores.topk(k, 1));
  return torch::where((top == batch.target.unsqueeze(1)).any(1), batch.target, top.select(1, 0));
}

struct Counts {
  torch::Tensor tp, fp, tn, fn;  // float64: 0-dim (binary) or one per class
};

Counts CountsOf(const torch::Tensor& confusion, MetricTask task) {
  const torch::Tensor m = confusion.to(torch::kFloat64);
  if (task == MetricTask::kMulticlass) {
    const torch::Tensor tp = m.diagonal();
    const torch::Tensor fp = m.sum(0) - tp;
    const torch::Tensor fn = m.sum(1) - tp;
    return {tp, fp, m.sum() - tp - fp - fn, fn};
  }
  const auto cell = [&](int64_t row, int64_t column) { return m.select(-2, row).select(-1, column); };
  return {cell(1, 1), cell(0, 1), cell(0, 0), cell(1, 0)};
}

torch::Tensor Divide(const torch::Tensor& numerator, const torch::Tensor& denominator) {
  return numerator / denominator.clamp_min(1);
}

torch::Tensor PerClass(Ratio ratio, const Counts& c, MetricTask task, double beta) {
  const bool multiclass = task == MetricTask::kMulticlass;
  switch (ratio) {
    case Ratio::kAccuracy:
      return multiclass ? Divide(c.tp, c.tp + c.fn) : Divide(c.tp + c.tn, c.tp + c.tn + c.fp + c.fn);
    case Ratio::kPrecision:
      return Divide(c.tp, c.tp + c.fp);
    case Ratio::kRecall:
      return Divide(c.tp, c.tp + c.fn);
    case Ratio::kSpecificity:
      return Divide(c.tn, c.tn + c.fp);
    case Ratio::kBalancedAccuracy:
      return multiclass ? Divide(c.tp, c.tp + c.fn) : (Divide(c.tp, c.tp + c.fn) + Divide(c.tn, c.tn + c.fp)) / 2;
    case Ratio::kJaccard:
      return Divide(c.tp, c.tp + c.fp + c.fn);
    case Ratio::kHammingLoss:
      return 1 - PerClass(Ratio::kAccuracy, c, task, beta);
    case Ratio::kFBeta: {
      const double square = beta * beta;
      return Divide((1 + square) * c.tp, (1 + square) * c.tp + square * c.fn + c.fp);
    }
  }
  return {};
}

}  // namespace

absl::StatusOr<Average> ParseAverage(const std::string& name) {
  if (name == "macro") return Average::kMacro;
  if (name == "micro") return Average::kMicro;
  if (name == "weighted") return Average::kWeighted;
  if (name == "none") return Average::kNone;
  return absl::InvalidArgumentError(absl::StrCat("average: found '", name, "'; allowed: macro, micro, weighted, none"));
}

torch::Tensor CountConfusion(const MaskedBatch& batch, MetricTask task, int64_t width, double threshold, int64_t k) {
  const torch::NoGradGuard no_grad;
  if (task == MetricTask::kMulticlass) {
    return CountInto(batch.target * width + PredictedClass(batch, k), batch.valid, width * width)
        .reshape({width, width});
  }
  const torch::Tensor predicted = batch.input > threshold;
  const torch::Tensor positive = batch.target == 1;
  const torch::Tensor valid = batch.valid.defined() ? batch.valid : torch::ones_like(positive);
  const auto count = [&](const torch::Tensor& row, const torch::Tensor& column) {
    return row.logical_and(column).logical_and(valid).sum(0);
  };
  const torch::Tensor negative = positive.logical_not();
  const torch::Tensor rejected = predicted.logical_not();
  const torch::Tensor cells = torch::stack(
      {count(negative, rejected), count(negative, predicted), count(positive, rejected), count(positive, predicted)},
      -1);
  return task == MetricTask::kBinary ? cells.reshape({2, 2}) : cells.reshape({width, 2, 2});
}

torch::Tensor RatioOf(Ratio ratio, const torch::Tensor& confusion, MetricTask task, Average average, double beta) {
  const torch::NoGradGuard no_grad;
  Counts counts = CountsOf(confusion, task);
  torch::Tensor result;
  if (task == MetricTask::kBinary) {
    result = PerClass(ratio, counts, task, beta);
  } else if (average == Average::kMicro) {
    for (torch::Tensor* part : {&counts.tp, &counts.fp, &counts.tn, &counts.fn}) *part = part->sum();
    result = PerClass(ratio, counts, task, beta);
  } else {
    result = PerClass(ratio, counts, task, beta);
    const torch::Tensor support = counts.tp + counts.fn;
    torch::Tensor weights;
    if (average == Average::kWeighted) {
      weights = support;
    } else if (average == Average::kMacro) {
      weights =
          task == MetricTask::kMulticlass ? (support + counts.fp > 0).to(torch::kFloat64) : torch::ones_like(result);
    }
    if (weights.defined()) result = Divide((weights * result).sum(), weights.sum());
  }
  return torch::where(confusion.sum() > 0, result, kNan).to(torch::kFloat32);
}

torch::Tensor MatthewsCorrelation(const torch::Tensor& confusion) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor m = (confusion.dim() == 3 ? confusion.sum(0) : confusion).to(torch::kFloat64);
  const torch::Tensor total = m.sum();
  const torch::Tensor rows = m.sum(1);
  const torch::Tensor columns = m.sum(0);
  const torch::Tensor covariance = m.diagonal().sum() * total - (rows * columns).sum();
  const torch::Tensor spread = (total * total - (columns * columns).sum()) * (total * total - (rows * rows).sum());
  torch::Tensor result = torch::where(spread > 0, covariance / spread.clamp_min(1).sqrt(), 0);
  if (m.size(0) == 2) {
    // A row or column is empty: the limit for counts of `tiny` instead of 0.
    const double tiny = std::numeric_limits<float>::epsilon();
    const torch::Tensor tn = m[0][0], fp = m[0][1], fn = m[1][0], tp = m[1][1];
    const torch::Tensor right = torch::where(torch::logical_or(tp == 0, tn == 0), tp + tn, 0);
    const torch::Tensor wrong = torch::where(torch::logical_or(fp == 0, fn == 0), fp + fn, 0);
    const torch::Tensor limit = std::sqrt(tiny) * (right - wrong) /
                                ((tp + fp + tiny) * (tp + fn + tiny) * (tn + fp + tiny) * (tn + fn + tiny)).sqrt();
    result = torch::where(spread > 0, result, limit);
    result = torch::where(torch::logical_and(fp + fn == 0, tp + tn > 0), 1, result);
    result = torch::where(torch::logical_and(tp + tn == 0, fp + fn > 0), -1, result);
  }
  return torch::where(total > 0, result, kNan).to(torch::kFloat32);
}

torch::Tensor KappaOf(const torch::Tensor& confusion, KappaWeights weights) {
  const torch::NoGradGuard no_grad;
  TORCH_CHECK_VALUE(confusion.dim() == 2, "Cohen's kappa: found a multilabel matrix ", confusion.sizes(),
                    "; allowed: binary and multiclass");
  const torch::Tensor m = confusion.to(torch::kFloat64);
  const torch::Tensor expected = torch::outer(m.sum(1), m.sum(0)) / m.sum().clamp_min(1);
  const torch::Tensor index = torch::arange(m.size(0), m.options());
  torch::Tensor cost = (index.unsqueeze(0) - index.unsqueeze(1)).abs();
  if (weights == KappaWeights::kNone) cost = (cost > 0).to(torch::kFloat64);
  if (weights == KappaWeights::kQuadratic) cost = cost.square();
  return torch::where(m.sum() > 0, 1 - (cost * m).sum() / (cost * expected).sum(), kNan).to(torch::kFloat32);
}

torch::Tensor NormalizeConfusion(const torch::Tensor& confusion, Normalize normalize) {
  const torch::NoGradGuard no_grad;
  if (normalize == Normalize::kNone) return confusion;
  const torch::Tensor m = confusion.to(torch::kFloat64);
  torch::Tensor total;
  if (normalize == Normalize::kTarget) {
    total = m.sum(-1, /*keepdim=*/true);
  } else if (normalize == Normalize::kPrediction) {
    total = m.sum(-2, /*keepdim=*/true);
  } else {
    total = m.sum({-2, -1}, /*keepdim=*/true);
  }
  return (m / total.clamp_min(1)).to(torch::kFloat32);
}

}  // namespace athanor::metrics
