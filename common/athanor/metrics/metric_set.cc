#include "athanor/metrics/metric_set.h"

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

}  // namespace athanor
