// Metric functions on one batch, and the preprocessing by itself.
#include "athanor/metrics/metric_set.h"
#include "tests/oracle/metric_case.h"

namespace athanor::oracle {
namespace {

std::string CheckFunction(const nlohmann::json& test) {
  const MetricFunction function = FindFunction(test.at("function").get<std::string>());
  if (function == nullptr) return "the replay does not know " + test["function"].dump();
  const auto run = [&] {
    const auto [input, target] = AsDeclared(BatchOf(test.at("input")), BatchOf(test.at("target")), true);
    return function(input, target, FunctionOptionsOf(test.at("args")));
  };
  if (IsError(test.at("expected"))) {
    return CheckFailure(test["expected"], [&] {
      run();
      return absl::OkStatus();
    });
  }
  return CompareMetric(test["expected"], run(), "value");
}

std::string CheckPreprocess(const nlohmann::json& test) {
  const auto run = [&] {
    const Preprocess preprocess = PreprocessOf({{"f", test.at("function")}, {"args", test.at("args")}});
    const auto [input, target] = AsDeclared(BatchOf(test.at("input")), BatchOf(test.at("target")),
                                            test.at("function") != "preprocess_regression");
    const LabeledBatch batch = PackedPair(input, target);
    return preprocess.ApplyAndDrop(batch.input, batch.target);
  };
  if (IsError(test.at("expected"))) {
    return CheckFailure(test["expected"], [&] {
      run();
      return absl::OkStatus();
    });
  }
  const LabeledBatch found = run();
  return FirstOf({Compare(TensorOf(test["expected"]["input"]), found.input, 0, "input"),
                  Compare(TensorOf(test["expected"]["target"]), found.target, 0, "target")});
}

// Where the recorder's library has its quirk.
bool ShowsQuirk(const nlohmann::json& test) {
  if (test.at("function") != "auprc" || !test.at("args").contains("num_classes") || IsError(test.at("expected")))
    return false;
  const NestedValue target = BatchOf(test.at("target"));
  const torch::Tensor labels = target.is_nested() ? target.nested().concat() : target.dense();
  return !(labels == 1).any().item<bool>();
}

void Functions(const nlohmann::json& file, Report& report) {
  for (const auto& test : file.at("cases"))
    report.Case(test.at("id").get<std::string>(),
                [&] { return UnderBothRules([&] { return CheckFunction(test); }, ShowsQuirk(test)); });
}

void Preprocessing(const nlohmann::json& file, Report& report) {
  for (const auto& test : file.at("cases"))
    report.Case(test.at("id").get<std::string>(),
                [&] { return UnderBothRules([&] { return CheckPreprocess(test); }); });
}

}  // namespace

ATHANOR_ORACLE_FAMILY(metric_functions, Functions);
ATHANOR_ORACLE_FAMILY(metric_preprocess, Preprocessing);

}  // namespace athanor::oracle
