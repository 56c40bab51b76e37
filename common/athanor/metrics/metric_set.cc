#include "athanor/metrics/metric_set.h"

#include "athanor/base/status_macros.h"

namespace athanor {

LabeledBatch PackedPair(const NestedValue& input, const NestedValue& target) {
  if (!input.is_nested() && !target.is_nested()) return {input.dense(), target.dense()};
  if (input.is_nested() && target.is_nested()) return {input.nested().concat(), target.nested().concat()};
  if (input.is_nested()) {
    return {input.nested().concat(), input.nested().NestedLike(target.dense(), /*strict=*/false).concat()};
  }
  return {target.nested().NestedLike(input.dense(), /*strict=*/false).concat(), target.nested().concat()};
}

void MetricSet::Update(const NestedValue& input, const NestedValue& target) {
  const LabeledBatch pair = PackedPair(input, target);
  Update(pair.input, pair.target);
}

absl::StatusOr<TensorMap> MetricSet::StateTensors() {
  return absl::UnimplementedError("these metrics do not save their state");
}

absl::StatusOr<std::function<void()>> MetricSet::PlanLoad(const TensorMap& /*state*/) {
  return absl::UnimplementedError("these metrics do not load a state");
}

absl::Status MetricSet::LoadState(const TensorMap& state) {
  ASSIGN_OR_RETURN(const std::function<void()> load, PlanLoad(state));
  load();
  return absl::OkStatus();
}

}  // namespace athanor
