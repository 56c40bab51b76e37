#include "athanor/metrics/functional/curves.h"

#include <limits>
#include <vector>

namespace athanor::metrics {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

torch::Tensor NanLike(const torch::Tensor& tensor, torch::IntArrayRef shape) {
  return torch::full(shape, kNan, torch::TensorOptions().dtype(torch::kFloat64).device(tensor.device()));
}

// Areas from cumulated counts in order of falling thresholds, one row per threshold.
torch::Tensor AreaFromCounts(Curve curve, const torch::Tensor& tp, const torch::Tensor& fp) {
  const torch::Tensor zero = torch::zeros({1}, tp.options());
  const torch::Tensor tp_before = torch::cat({zero, tp.slice(0, 0, -1)});
  const torch::Tensor fp_before = torch::cat({zero, fp.slice(0, 0, -1)});
  const torch::Tensor positives = tp.select(0, -1);
  const torch::Tensor negatives = fp.select(0, -1);
  if (curve == Curve::kAuroc) {
    const torch::Tensor area = ((fp - fp_before) * (tp + tp_before)).sum() / 2;
    const torch::Tensor pairs = positives * negatives;
    return torch::where(positives + negatives > 0, area / pairs.clamp_min(1), kNan);
  }
  const torch::Tensor precision = tp / (tp + fp).clamp_min(1);
  const torch::Tensor area = ((tp - tp_before) * precision).sum() / positives.clamp_min(1);
  return torch::where(positives > 0, area, kNan);
}

// One column of a task: which entries are positive.
struct Column {
  torch::Tensor scores, positive, valid;
};

// `scores`: of the batch, as they are to be ranked or binned.
std::vector<Column> Columns(const MaskedBatch& batch, const torch::Tensor& scores, MetricTask task, int64_t width,
                            bool micro) {
  if (task == MetricTask::kBinary) return {{scores, batch.target == 1, batch.valid}};
  torch::Tensor positive = batch.target == 1;
  torch::Tensor valid = batch.valid;
  if (task == MetricTask::kMulticlass) {
    positive = batch.target.unsqueeze(1) == torch::arange(width, batch.target.options());
    if (valid.defined()) valid = valid.unsqueeze(1).expand({-1, width});
  }
  if (micro) {
    return {{scores.flatten(), positive.flatten(), valid.defined() ? valid.flatten() : valid}};
  }
  std::vector<Column> columns;
  for (int64_t i = 0; i < width; ++i) {
    columns.push_back({scores.select(1, i), positive.select(1, i), valid.defined() ? valid.select(1, i) : valid});
  }
  return columns;
}

// AUROC of the missing is a number already.
torch::Tensor Reduce(const torch::Tensor& areas, const torch::Tensor& support, Average average) {
  if (average == Average::kNone) return areas.to(torch::kFloat32);
  const torch::Tensor known = torch::isnan(areas).logical_not();
  torch::Tensor weights = known.to(torch::kFloat64);
  if (average == Average::kWeighted) weights = weights * support;
  const torch::Tensor sum = (torch::where(known, areas, 0) * weights).sum();
  return torch::where(known.any(), sum / weights.sum().clamp_min(1), kNan).to(torch::kFloat32);
}

// A label without positives has precision 0 everywhere; a class that is missing from a multiclass task says nothing.
torch::Tensor ZeroForNoPositives(Curve curve, MetricTask task, const torch::Tensor& area,
                                 const torch::Tensor& counted) {
  if (curve == Curve::kAuroc || task == MetricTask::kMulticlass) return area;
  return torch::where(torch::logical_and(torch::isnan(area), counted > 0), -0.0, area);
}

torch::Tensor CountOf(const torch::Tensor& flags, const torch::Tensor& valid) {
  return (valid.defined() ? flags.logical_and(valid) : flags).sum().to(torch::kFloat64);
}

// Precision at the highest score: what average precision is when recall is 1 from the first threshold on.
torch::Tensor TopPrecision(const Column& column) {
  const torch::Tensor scores =
      column.valid.defined() ? torch::where(column.valid, column.scores, -kInfinity) : column.scores;
  const torch::Tensor top = scores == scores.max();
  return CountOf(top.logical_and(column.positive), column.valid) / CountOf(top, column.valid).clamp_min(1);
}

}  // namespace

torch::Tensor ExactArea(Curve curve, const torch::Tensor& scores, const torch::Tensor& positive,
                        const torch::Tensor& valid) {
  const torch::NoGradGuard no_grad;
  if (scores.numel() == 0) return NanLike(scores, {});
  const auto [sorted, order] = scores.sort(0, /*descending=*/true);
  torch::Tensor hits = positive.index_select(0, order);
  torch::Tensor misses = hits.logical_not();
  if (valid.defined()) {
    const torch::Tensor counts = valid.index_select(0, order);
    hits = hits.logical_and(counts);
    misses = misses.logical_and(counts);
  }
  // Only the last entry of a tie is a threshold; the others repeat the threshold before (a segment without width).
  const torch::Tensor last =
      torch::cat({sorted.slice(0, 1) != sorted.slice(0, 0, -1), torch::ones({1}, positive.options())});
  const auto cumulate = [&](const torch::Tensor& flags) {
    const torch::Tensor sums = torch::where(last, flags.to(torch::kFloat64).cumsum(0), 0);
    return std::get<0>(sums.cummax(0));
  };
  const torch::Tensor area = AreaFromCounts(curve, cumulate(hits), cumulate(misses));
  const torch::Tensor unknown = scores.isnan();  // has no place among the others
  return torch::where((valid.defined() ? unknown.logical_and(valid) : unknown).any(), kNan, area);
}

torch::Tensor AreaOf(Curve curve, const MaskedBatch& batch, MetricTask task, int64_t width, Average average,
                     MissingClass missing) {
  const torch::NoGradGuard no_grad;
  const bool single = task == MetricTask::kBinary || average == Average::kMicro;
  std::vector<torch::Tensor> areas, supports;
  for (const Column& column : Columns(batch, batch.Ranking(task), task, width, average == Average::kMicro)) {
    const torch::Tensor support = CountOf(column.positive, column.valid);
    const torch::Tensor counted = CountOf(torch::ones_like(column.positive), column.valid);
    areas.push_back(ZeroForNoPositives(curve, single ? MetricTask::kBinary : task,
                                       ExactArea(curve, column.scores, column.positive, column.valid), counted));
    supports.push_back(support);
    if (curve == Curve::kAuprc && task == MetricTask::kMulticlass && missing == MissingClass::kReference && !single &&
        batch.target.numel() > 0) {
      const torch::Tensor none = CountOf(batch.target == 1, batch.valid) == 0;
      areas.back() = torch::where(none, TopPrecision(column), areas.back());
    }
  }
  if (single) return areas[0].to(torch::kFloat32);
  return Reduce(torch::stack(areas), torch::stack(supports), average);
}

torch::Tensor CountCurve(const MaskedBatch& batch, MetricTask task, int64_t width, int64_t bins) {
  const torch::NoGradGuard no_grad;
  TORCH_CHECK_VALUE(bins >= 2, "thresholds of a binned curve: found ", bins, "; allowed: 2 or more");
  const auto options = torch::TensorOptions().dtype(torch::kInt64).device(batch.input.device());
  const torch::Tensor edges = torch::linspace(0, 1, bins, options.dtype(batch.input.scalar_type()));
  std::vector<torch::Tensor> counts;
  for (const Column& column : Columns(batch, batch.input, task, width, /*micro=*/false)) {
    torch::Tensor bin = torch::bucketize(column.scores.contiguous(), edges, /*out_int32=*/false, /*right=*/true) - 1;
    bin = bin.clamp(0, bins - 1) + column.positive.to(torch::kInt64) * bins;
    if (column.valid.defined()) bin = torch::where(column.valid, bin, 2 * bins);
    const torch::Tensor one = torch::ones({1}, options).expand({bin.numel()});
    counts.push_back(
        torch::zeros({2 * bins + 1}, options).index_add_(0, bin, one).narrow(0, 0, 2 * bins).reshape({2, bins}));
  }
  return torch::stack(counts);
}

torch::Tensor BinnedAreaOf(Curve curve, const torch::Tensor& counts, MetricTask task, Average average) {
  const torch::NoGradGuard no_grad;
  torch::Tensor m = counts.to(torch::kFloat64).flip(-1);
  const bool single = task == MetricTask::kBinary || average == Average::kMicro;
  if (single) m = m.sum(0, /*keepdim=*/true);
  std::vector<torch::Tensor> areas;
  for (int64_t i = 0; i < m.size(0); ++i) {
    const torch::Tensor area = AreaFromCounts(curve, m[i][1].cumsum(0), m[i][0].cumsum(0));
    areas.push_back(ZeroForNoPositives(curve, single ? MetricTask::kBinary : task, area, m[i].sum()));
  }
  if (single) return areas[0].to(torch::kFloat32);
  return Reduce(torch::stack(areas), m.select(1, 1).sum(1), average);
}

torch::Tensor CountCalibration(const MaskedBatch& batch, MetricTask task, int64_t bins) {
  const torch::NoGradGuard no_grad;
  TORCH_CHECK_VALUE(bins >= 1 && task != MetricTask::kMultilabel, "calibration error: found ", bins, " bins for a ",
                    ToString(task), " task; allowed: 1 or more, binary and multiclass");
  torch::Tensor confidence = batch.input;
  torch::Tensor hit = batch.target == 1;
  if (task == MetricTask::kMulticlass) {
    torch::Tensor top;
    std::tie(confidence, top) = batch.input.max(1);
    hit = top == batch.target;
  }
  confidence = confidence.to(torch::kFloat64);
  const torch::Tensor edges = torch::linspace(0, 1, bins + 1, confidence.options());
  torch::Tensor bin = (torch::bucketize(confidence, edges, false, /*right=*/true) - 1).clamp(0, bins - 1);
  if (batch.valid.defined()) bin = torch::where(batch.valid, bin, bins);
  const torch::Tensor rows = torch::stack({torch::ones_like(confidence), confidence, hit.to(torch::kFloat64)});
  return torch::zeros({3, bins + 1}, confidence.options()).index_add_(1, bin, rows).narrow(1, 0, bins);
}

torch::Tensor CalibrationErrorOf(const torch::Tensor& counts, CalibrationNorm norm) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor samples = counts[0];
  const torch::Tensor gap = (counts[1] - counts[2]).abs() / samples.clamp_min(1);
  const torch::Tensor share = samples / samples.sum().clamp_min(1);
  torch::Tensor error;
  if (norm == CalibrationNorm::kL1) {
    error = (gap * share).sum();
  } else if (norm == CalibrationNorm::kL2) {
    error = (gap.square() * share).sum().sqrt();
  } else {
    error = gap.max();
  }
  return torch::where(samples.sum() > 0, error, kNan).to(torch::kFloat32);
}

}  // namespace athanor::metrics
