#include "athanor/metrics/functional/regression.h"

#include "athanor/metrics/functional/regression_moments.h"

namespace athanor::metrics {
namespace {

MetricNeeds NeedsOf(int64_t num_outputs) {
  TORCH_CHECK_VALUE(num_outputs >= 1, "num_outputs: found ", num_outputs, "; allowed: 1 or more");
  MetricNeeds needs;
  needs.task = MetricTask::kRegression;
  needs.num_outputs = num_outputs;
  return needs;
}

MetricFunc MomentMetric(const char* name, RegressionKind kind, int64_t num_outputs) {
  MetricNeeds needs = NeedsOf(num_outputs);
  needs.moments = true;
  return {name, needs, [kind](const MetricState& state) { return RegressionOf(kind, state.moments, state.dtype); }};
}

}  // namespace

MetricFunc Pearson(int64_t num_outputs) {
  return MomentMetric("pearson", RegressionKind::kPearson, num_outputs);
}
MetricFunc Spearman(int64_t num_outputs) {
  MetricNeeds needs = NeedsOf(num_outputs);
  needs.history = true;
  return {"spearman", needs,
          [num_outputs](const MetricState& state) { return SpearmanOf(state.samples, num_outputs); }};
}
MetricFunc R2Score(int64_t num_outputs) {
  return MomentMetric("r2", RegressionKind::kR2, num_outputs);
}
MetricFunc Mse(int64_t num_outputs) {
  return MomentMetric("mse", RegressionKind::kMse, num_outputs);
}
MetricFunc Rmse(int64_t num_outputs) {
  return MomentMetric("rmse", RegressionKind::kRmse, num_outputs);
}
MetricFunc Mae(int64_t num_outputs) {
  return MomentMetric("mae", RegressionKind::kMae, num_outputs);
}

}  // namespace athanor::metrics
