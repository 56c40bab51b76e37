#include "athanor/metrics/functional/regression_moments.h"

#include <limits>
#include <vector>

namespace athanor::metrics {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// [N, outputs] float64, and the weights 0 or 1 as [N, 1].
struct Pairs {
  torch::Tensor x, y, w;
};

Pairs PairsOf(const MaskedBatch& batch, int64_t num_outputs) {
  Pairs pairs{batch.input.reshape({-1, num_outputs}).to(torch::kFloat64),
              batch.target.reshape({-1, num_outputs}).to(torch::kFloat64),
              {}};
  if (!batch.rows.defined()) {
    pairs.w = torch::ones({pairs.x.size(0), 1}, pairs.x.options());
    return pairs;
  }
  const torch::Tensor rows = batch.rows.reshape({-1, 1});
  pairs.w = rows.to(torch::kFloat64);
  pairs.x = torch::where(rows, pairs.x, 0);
  pairs.y = torch::where(rows, pairs.y, 0);
  return pairs;
}

// Ranks from 1 of what has weight; ties share the mean of their ranks.
torch::Tensor Ranks(const torch::Tensor& values, const torch::Tensor& weights) {
  const auto [sorted, order] = values.sort(0);
  const torch::Tensor w = weights.index_select(0, order);
  const torch::Tensor through = w.cumsum(0);
  const torch::Tensor edge = torch::ones({1}, torch::TensorOptions().dtype(torch::kBool).device(values.device()));
  const torch::Tensor differs = sorted.slice(0, 1) != sorted.slice(0, 0, -1);
  const torch::Tensor first = torch::cat({edge, differs});
  const torch::Tensor last = torch::cat({differs, edge});
  const torch::Tensor before = std::get<0>(torch::where(first, through - w, 0).cummax(0));
  const torch::Tensor upto =
      std::get<0>(torch::where(last, through, std::numeric_limits<double>::max()).flip(0).cummin(0)).flip(0);
  return torch::zeros_like(through).scatter_(0, order, (before + 1 + upto) / 2);
}

}  // namespace

torch::Tensor CountMoments(const MaskedBatch& batch, int64_t num_outputs) {
  const torch::NoGradGuard no_grad;
  const Pairs p = PairsOf(batch, num_outputs);
  const torch::Tensor n = p.w.sum(0).expand({num_outputs});
  const torch::Tensor mean_x = (p.x * p.w).sum(0) / n.clamp_min(1);
  const torch::Tensor mean_y = (p.y * p.w).sum(0) / n.clamp_min(1);
  const torch::Tensor dx = (p.x - mean_x) * p.w;
  const torch::Tensor dy = (p.y - mean_y) * p.w;
  const torch::Tensor error = (p.x - p.y) * p.w;
  return torch::stack({n, mean_x, mean_y, (dx * dx).sum(0), (dy * dy).sum(0), (dx * dy).sum(0), error.square().sum(0),
                       error.abs().sum(0)});
}

torch::Tensor MergeMoments(const torch::Tensor& a, const torch::Tensor& b) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor n = a[0] + b[0];
  const torch::Tensor share = b[0] / n.clamp_min(1);
  const torch::Tensor dx = b[1] - a[1];
  const torch::Tensor dy = b[2] - a[2];
  const torch::Tensor cross = a[0] * share;
  // An empty side has means of 0 that must not count.
  return torch::stack({n, a[1] + dx * share, a[2] + dy * share, a[3] + b[3] + dx * dx * cross,
                       a[4] + b[4] + dy * dy * cross, a[5] + b[5] + dx * dy * cross, a[6] + b[6], a[7] + b[7]});
}

torch::Tensor RegressionOf(RegressionKind kind, const torch::Tensor& moments, torch::Dtype dtype) {
  const torch::NoGradGuard no_grad;
  if (dtype != torch::kFloat64) dtype = torch::kFloat32;
  const torch::Tensor n = moments[0];
  torch::Tensor result;
  switch (kind) {
    case RegressionKind::kPearson:
      result = (moments[5] / (moments[3] * moments[4]).sqrt()).clamp(-1, 1);
      return torch::where(n > 1, result, kNan).mean().to(dtype);
    case RegressionKind::kR2: {
      const torch::Tensor perfect = moments[6] < 1e-4;
      const torch::Tensor constant = moments[4] < 1e-4;
      result = torch::where(constant, 0, 1 - moments[6] / moments[4]);
      result = torch::where(perfect, 1, result);
      return torch::where(n > 1, result, kNan).mean().to(dtype);
    }
    case RegressionKind::kMse:
      result = moments[6] / n;
      break;
    case RegressionKind::kRmse:
      result = (moments[6] / n).sqrt();
      break;
    case RegressionKind::kMae:
      result = moments[7] / n;
      break;
  }
  return (moments.size(1) == 1 ? result[0] : result).to(dtype);
}

torch::Tensor SpearmanOf(const MaskedBatch& batch, int64_t num_outputs) {
  constexpr double kSmall = 1e-6;  // keeps constants at 0 instead of 0 / 0; the reference's results contain it
  const torch::NoGradGuard no_grad;
  const Pairs p = PairsOf(batch, num_outputs);
  const torch::Dtype dtype = batch.input.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
  const auto options = p.x.options();
  if (p.x.size(0) == 0) return torch::full({}, kNan, options.dtype(dtype));
  const torch::Tensor w = p.w.select(1, 0);
  const torch::Tensor n = w.sum();
  std::vector<torch::Tensor> results;
  for (int64_t i = 0; i < num_outputs; ++i) {
    const torch::Tensor mean = (n + 1) / 2;
    const torch::Tensor dx = (Ranks(p.x.select(1, i), w) - mean) * w;
    const torch::Tensor dy = (Ranks(p.y.select(1, i), w) - mean) * w;
    const torch::Tensor covariance = (dx * dy).sum() / n;
    const torch::Tensor spread = (dx.square().sum() / n).sqrt() * (dy.square().sum() / n).sqrt();
    const torch::Tensor unknown = (p.x.select(1, i) + p.y.select(1, i)).isnan().any();  // has no rank
    results.push_back(torch::where(unknown, kNan, (covariance / (spread + kSmall)).clamp(-1, 1)));
  }
  return torch::stack(results).mean().to(dtype);
}

}  // namespace athanor::metrics
