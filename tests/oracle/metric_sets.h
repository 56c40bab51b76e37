// Containers of metrics as the recorded cases describe them.
#pragma once

#include <memory>

#include "athanor/metrics/metric_factory.h"
#include "athanor/metrics/multitask_metrics.h"
#include "tests/oracle/metric_case.h"

namespace athanor::oracle {

// {"container": "factory" | "registry" | "StreamMetrics" | "MetricMeter" | "GlobalMetrics", …}
absl::StatusOr<std::unique_ptr<MetricSet>> MakeSet(const nlohmann::json& spec,
                                                   std::shared_ptr<MeterSync> sync = nullptr);
// {"tasks": {"a": "t1", …}, "aggregate", "aggregate_weights"}
absl::StatusOr<MultiTaskMetrics> MakeTasks(const nlohmann::json& test, std::shared_ptr<MeterSync> sync);
// {"a": [input, target] | {"input", "target"}, …}
absl::Status UpdateTasks(const nlohmann::json& update, MultiTaskMetrics& metrics);

}  // namespace athanor::oracle
