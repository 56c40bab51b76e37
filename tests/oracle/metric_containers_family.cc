// Containers of metrics, update by update: StreamMetrics, MetricMeter, GlobalMetrics, what the factories and the
// registry build, and several tasks under one roof.
#include <set>

#include "absl/strings/str_split.h"
#include "tests/oracle/metric_sets.h"

namespace athanor::oracle {
namespace {

bool IsSingle(const nlohmann::json& spec) {
  return spec.value("container", "") == "MetricMeter";
}

// A MetricMeter has one value instead of values by name.
std::string CompareView(const nlohmann::json& expected, const absl::StatusOr<MetricValues>& found, bool single,
                        const std::string& what) {
  if (IsError(expected)) return CheckFailure(expected, [&] { return found.status(); });
  if (!found.ok()) return what + ": " + found.status().ToString();
  return single ? CompareMetric(expected, found->at(0).second, what) : CompareMetrics(expected, *found, what);
}

std::string CompareCount(const nlohmann::json& expected, const absl::StatusOr<int64_t>& found, const char* what) {
  if (expected.is_null()) return "";
  if (!found.ok()) return found.status().ToString();
  if (!expected.is_object()) return Compare(Number(expected), static_cast<double>(*found), 0, what);
  for (const auto& [name, count] : expected.items()) {
    if (std::string text = Compare(Number(count), static_cast<double>(*found), 0, what + ("." + name)); !text.empty())
      return text;
  }
  return "";
}

std::string CompareText(const nlohmann::json& expected, const absl::StatusOr<std::string>& found, bool single) {
  if (expected.is_null()) return "";
  if (IsError(expected)) return CheckFailure(expected, [&] { return found.status(); });
  if (!found.ok()) return found.status().ToString();
  const std::string text = single ? found->substr(found->find(": ") + 2) : *found;
  // The recorded file gives the metrics as an object, which has no order: the parts must be the same.
  const auto parts = [](const std::string& whole) {
    std::multiset<std::string> found;
    for (const absl::string_view part : absl::StrSplit(whole, absl::ByAnyChar("\t\n"))) found.emplace(part);
    return found;
  };
  return parts(text) == parts(expected.get<std::string>())
             ? ""
             : "text: expected " + expected.dump() + ", found \"" + text + "\"";
}

std::string CompareState(const nlohmann::json& expected, MetricSet& metrics, bool single, const std::string& when) {
  const std::string text =
      FirstOf({CompareView(expected.at("val"), metrics.Value(), single, "val"),
               CompareView(expected.at("bat"), metrics.Batch(), single, "bat"),
               CompareView(expected.at("avg"), metrics.Average(), single, "avg"),
               CompareCount(expected.value("n", nlohmann::json()), metrics.Samples(true, false), "n"),
               CompareCount(expected.value("count", nlohmann::json()), metrics.Samples(false, false), "count"),
               CompareText(expected.value("format_4f", nlohmann::json()), metrics.Text(4), single)});
  return text.empty() ? "" : when + ": " + text;
}

std::string CheckContainer(const nlohmann::json& test) {
  const nlohmann::json& spec = test.at("spec");
  if (test.contains("construct")) {
    return CheckFailure(test["construct"], [&] { return MakeSet(spec).status(); });
  }
  absl::StatusOr<std::unique_ptr<MetricSet>> metrics = MakeSet(spec);
  if (!metrics.ok()) return metrics.status().ToString();
  const bool single = IsSingle(spec);
  if (std::string text = CompareState(test.at("initial"), **metrics, single, "at first"); !text.empty()) return text;
  for (size_t i = 0; i < test.at("updates").size(); ++i) {
    const nlohmann::json& update = test["updates"][i];
    const nlohmann::json& expected = test["after"][i];
    const auto run = [&] {
      if (update == "reset") {
        (*metrics)->Reset();
        return absl::OkStatus();
      }
      (*metrics)->Update(BatchOf(update.at("input")), BatchOf(update.at("target")));
      return absl::OkStatus();
    };
    const std::string when = "after update " + std::to_string(i);
    if (IsError(expected)) {
      if (std::string text = CheckFailure(expected, run); !text.empty()) return when + ": " + text;
      continue;
    }
    run().IgnoreError();
    if (std::string text = CompareState(expected, **metrics, single, when); !text.empty()) return text;
  }
  return "";
}

std::string CompareTasks(const nlohmann::json& expected, const absl::StatusOr<TaskValues>& found, const char* what) {
  if (IsError(expected)) return CheckFailure(expected, [&] { return found.status(); });
  if (!found.ok()) return std::string(what) + ": " + found.status().ToString();
  if (expected.size() != found->size()) return std::string(what) + ": another number of tasks than " + expected.dump();
  for (const auto& [task, values] : *found) {
    if (!expected.contains(task)) return std::string(what) + ": task '" + task + "' is not expected";
    const nlohmann::json& wanted = expected[task];
    if (!wanted.is_object() || IsTensor(wanted)) {  // a task that is one plain metric
      if (std::string text = CompareMetric(wanted, values.at(0).second, task); !text.empty()) return text;
    } else if (std::string text = CompareMetrics(wanted, values, std::string(what) + "." + task); !text.empty()) {
      return text;
    }
  }
  return "";
}

std::string CompareAllTasks(const nlohmann::json& expected, MultiTaskMetrics& metrics) {
  std::string text = FirstOf({CompareTasks(expected.at("val"), metrics.ValueByTask(), "val"),
                              CompareTasks(expected.at("bat"), metrics.BatchByTask(), "bat"),
                              CompareTasks(expected.at("avg"), metrics.AverageByTask(), "avg")});
  if (text.empty()) text = CompareText(expected.value("format_4f", nlohmann::json()), metrics.Text(4), false);
  return text;
}

std::string CheckTasks(const nlohmann::json& test) {
  const auto create = [&]() { return MakeTasks(test, nullptr); };
  if (test.contains("construct")) return CheckFailure(test["construct"], [&] { return create().status(); });
  absl::StatusOr<MultiTaskMetrics> metrics = create();
  if (!metrics.ok()) return metrics.status().ToString();
  if (std::string text = CompareAllTasks(test.at("initial"), *metrics); !text.empty()) return "at first: " + text;
  for (size_t i = 0; i < test.at("updates").size(); ++i) {
    const nlohmann::json& expected = test["after"][i];
    const auto run = [&] { return UpdateTasks(test["updates"][i], *metrics); };
    const std::string when = "after update " + std::to_string(i) + ": ";
    if (IsError(expected)) {
      if (std::string text = CheckFailure(expected, run); !text.empty()) return when + text;
      continue;
    }
    if (const absl::Status status = run(); !status.ok()) return when + status.ToString();
    if (std::string text = CompareAllTasks(expected, *metrics); !text.empty()) return when + text;
  }
  return "";
}

void Containers(const nlohmann::json& file, Report& report) {
  for (const auto& test : file.at("cases")) {
    const std::string id = test.at("id").get<std::string>();
    // Cases whose recorded answer is a defect run too: nothing may break.
    report.Case(id, [&] {
      const std::string text = CheckContainer(test);
      return report.deviation(id).empty() ? text : "";
    });
  }
}

void Tasks(const nlohmann::json& file, Report& report) {
  for (const auto& test : file.at("cases")) {
    const std::string id = test.at("id").get<std::string>();
    report.Case(id, [&] {
      const std::string text = CheckTasks(test);
      return report.deviation(id).empty() ? text : "";
    });
  }
}

}  // namespace

ATHANOR_ORACLE_FAMILY(metric_containers, Containers);
ATHANOR_ORACLE_FAMILY(multitask_metrics, Tasks);

}  // namespace athanor::oracle
