// What the metric families share: inputs, descriptors and functions by the recorder's names, comparison of values.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "athanor/metrics/functional/functional.h"
#include "athanor/metrics/metric_func.h"
#include "athanor/metrics/metric_values.h"
#include "athanor/metrics/stream_metrics.h"
#include "athanor/nested/tensor.h"
#include "tests/oracle/replay.h"

namespace athanor::oracle {

// By which rules a case is replayed. The recorder's: every batch is guessed to be logits or probabilities, and average
// precision has a quirk of its library. A case must hold under them, and under the defaults of this library unless
// deviations.json says otherwise.
struct ReplayRules {
  Scores scores = Scores::kDetect;
  metrics::MissingClass missing = metrics::MissingClass::kReference;
};
const ReplayRules& Rules();

// In force while it lives, for all threads. `quirk`: that of average precision stays; for cases in which it shows, and
// which are compared with what was recorded.
class WithDefaults {
 public:
  explicit WithDefaults(bool quirk = false);
  ~WithDefaults();
  WithDefaults(const WithDefaults&) = delete;
};

// Runs `check` under the recorder's rules, and under the defaults.
std::string UnderBothRules(const std::function<std::string()>& check, bool quirk = false);

// What a user of the rules in force passes on: with the defaults, scores that the recorder takes for logits are made
// probabilities. `float_labels`: targets of a floating dtype are labels too, not those of a regression.
std::pair<NestedValue, NestedValue> AsDeclared(const NestedValue& input, const NestedValue& target,
                                               bool float_labels = false);
// That some score which counts lies outside 0..1.
bool LooksLikeLogits(const NestedValue& input, const NestedValue& target, bool float_labels = false);

// A tensor, a nested one, a list of numbers or of lists (ragged lists become nested).
NestedValue BatchOf(const nlohmann::json& value);
metrics::MetricOptions MetricOptionsOf(const nlohmann::json& args);
metrics::FunctionOptions FunctionOptionsOf(const nlohmann::json& args);

// "accuracy" … of functional.h; nullptr for an unknown name.
using MetricFunction = torch::Tensor (*)(const NestedValue&, const NestedValue&, const metrics::FunctionOptions&);
MetricFunction FindFunction(const std::string& name);
bool IsDescriptor(const std::string& name);  // "binary_accuracy", "mcc" …
MetricFunc DescriptorOf(const std::string& name, const nlohmann::json& args);
// {"f": "preprocess_binary", "args": {...}}
Preprocess PreprocessOf(const nlohmann::json& spec);

// A number or a tensor, with the tolerance of its dtype; numbers 1e-6 (they come from float32 arithmetic).
std::string CompareMetric(const nlohmann::json& expected, const torch::Tensor& found, const std::string& what);
// {"name": value, …} against values of the same names, in any order; names that are not expected are a failure.
std::string CompareMetrics(const nlohmann::json& expected, const MetricValues& found, const std::string& what);
// The kind of exception or status that `run` ends with: "ValueError" …, "" for none.
std::string KindOfFailure(const std::function<absl::Status()>& run);
std::string CheckFailure(const nlohmann::json& expected, const std::function<absl::Status()>& run);
bool IsError(const nlohmann::json& expected);

}  // namespace athanor::oracle
