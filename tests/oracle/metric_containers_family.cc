// Containers of metrics, update by update: StreamMetrics, MetricMeter, GlobalMetrics, what the factories and the
// registry build, and several tasks under one roof.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
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

bool Mentions(const nlohmann::json& spec, const char* text) {
  return absl::StrContains(absl::AsciiStrToLower(spec.dump()), text);
}

bool IsRegression(const nlohmann::json& spec) {
  for (const char* name : {"regression", "pearson", "spearman", "r2", "mse", "mae"}) {
    if (Mentions(spec, name)) return true;
  }
  return false;
}

std::pair<NestedValue, NestedValue> BatchFor(const nlohmann::json& test, const nlohmann::json& update) {
  return AsDeclared(BatchOf(update.at("input")), BatchOf(update.at("target")), !IsRegression(test.at("spec")));
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
      const auto [input, target] = BatchFor(test, update);
      (*metrics)->Update(input, target);
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

// Rules under which cases deviate, whatever they are called: names in deviations.json.
constexpr char kMicroCurves[] = "rule: curves with the micro average";
constexpr char kShortR2[] = "rule: R2 of fewer than two samples";
constexpr char kNoLabelOne[] = "rule: multiclass average precision without a label 1";
constexpr char kFloatLabels[] = "rule: labels of a floating dtype";
constexpr char kIgnoreIndex[] = "rule: an absent ignore_index beside a number";
constexpr char kLogits[] = "rule: logits that nobody declared";

bool IsFactory(const nlohmann::json& spec) {
  return spec.at("container") == "factory" || spec["container"] == "registry";
}

bool AnyUpdate(const nlohmann::json& test, const std::function<bool(const torch::Tensor& target)>& has) {
  for (const auto& update : test.value("updates", nlohmann::json::array())) {
    if (update == "reset") continue;
    const NestedValue target = BatchOf(update.at("target"));
    if (has(target.is_nested() ? target.nested().concat() : target.dense())) return true;
  }
  return false;
}

bool HasFloatLabels(const nlohmann::json& test) {
  return !IsRegression(test.at("spec")) &&
         AnyUpdate(test, [](const torch::Tensor& target) { return target.is_floating_point(); });
}

bool HasLogits(const nlohmann::json& test) {
  const bool float_labels = !IsRegression(test.at("spec"));
  for (const auto& update : test.value("updates", nlohmann::json::array())) {
    if (update != "reset" && LooksLikeLogits(BatchOf(update.at("input")), BatchOf(update.at("target")), float_labels))
      return true;
  }
  return false;
}

// Some metrics count all labels, others leave some out.
bool MixesIgnoreIndex(const nlohmann::json& spec) {
  bool none = false, number = false;
  for (const auto& [name, metric] : spec.value("metrics", nlohmann::json::object()).items()) {
    const nlohmann::json args = metric.value("args", nlohmann::json::object());
    const bool absent = args.contains("ignore_index") && args["ignore_index"].is_null();
    (absent ? none : number) = true;
  }
  return none && number && spec.at("container") == "GlobalMetrics";
}

// The rules by which the case deviates under the defaults.
std::vector<std::string> DeviationsOf(const nlohmann::json& test) {
  if (test.contains("construct") && !MixesIgnoreIndex(test.at("spec"))) return {};
  const nlohmann::json& spec = test.at("spec");
  const bool curves = IsFactory(spec) || Mentions(spec, "auroc") || Mentions(spec, "auprc");
  std::vector<std::string> rules;
  if (curves && Mentions(spec, "\"micro\"") && !Mentions(spec, "regression")) rules.push_back(kMicroCurves);
  if ((Mentions(spec, "r2") || Mentions(spec, "regression")) &&
      AnyUpdate(test, [](const torch::Tensor& target) { return target.size(0) < 2; }))
    rules.push_back(kShortR2);
  if (MixesIgnoreIndex(spec)) rules.push_back(kIgnoreIndex);
  if (HasFloatLabels(test) && Mentions(test.value("after", nlohmann::json()), "\"error\""))
    rules.push_back(kFloatLabels);
  if (curves && Mentions(spec, "multiclass") && (IsFactory(spec) || Mentions(spec, "auprc")) &&
      AnyUpdate(test, [](const torch::Tensor& target) { return !(target == 1).any().item<bool>(); }))
    rules.push_back(kNoLabelOne);
  if (rules != std::vector<std::string>{kNoLabelOne}) return rules;
  const WithDefaults defaults;  // it does not show in every average
  return CheckContainer(test).empty() ? std::vector<std::string>{} : rules;
}

bool AlsoByRecordersRules(const std::string& rule) {
  return rule != kNoLabelOne;
}

nlohmann::json NumbersOf(const torch::Tensor& value) {
  const torch::Tensor flat = value.to(torch::kCPU, torch::kFloat64).reshape({-1});
  nlohmann::json list = nlohmann::json::array();
  for (int64_t i = 0; i < flat.numel(); ++i) {
    const double number = flat[i].item<double>();
    list.push_back(std::isnan(number) ? nlohmann::json("nan") : nlohmann::json(number));
  }
  return value.dim() == 0 ? list[0] : list;
}

nlohmann::json ViewOf(const absl::StatusOr<MetricValues>& values, bool single) {
  if (!values.ok()) return {{"error", "ValueError"}, {"message", values.status().message()}};
  if (single) return NumbersOf(values->at(0).second);
  nlohmann::json view = nlohmann::json::object();
  for (const auto& [name, value] : *values) view[name] = NumbersOf(value);
  return view;
}

// Everything that can be read, in the form of the recorded cases.
nlohmann::json StateOf(MetricSet& metrics, bool single) {
  return {{"val", ViewOf(metrics.Value(), single)},   {"bat", ViewOf(metrics.Batch(), single)},
          {"avg", ViewOf(metrics.Average(), single)}, {"n", *metrics.Samples(true, false)},
          {"count", *metrics.Samples(false, false)},  {"format_4f", metrics.Text(4).value_or("")}};
}

// What this library answers where it deviates, to be looked through and put into deviations.json.
std::string OursOf(const nlohmann::json& test) {
  absl::StatusOr<std::unique_ptr<MetricSet>> metrics = MakeSet(test.at("spec"));
  if (!metrics.ok()) return metrics.status().ToString();
  nlohmann::json ours = {{"initial", StateOf(**metrics, IsSingle(test["spec"]))}, {"after", nlohmann::json::array()}};
  for (const auto& update : test.at("updates")) {
    if (update == "reset") {
      (*metrics)->Reset();
    } else {
      const auto [input, target] = BatchFor(test, update);
      (*metrics)->Update(input, target);
    }
    ours["after"].push_back(StateOf(**metrics, IsSingle(test["spec"])));
  }
  return ours.dump();
}

// That nothing throws, and every read-out has an answer.
std::string CheckRuns(const nlohmann::json& test) {
  const std::string ours = OursOf(test);
  return absl::StrContains(ours, "\"error\"") ? "ours: " + ours : "";
}

// Logits are refused by the default, which says how to declare them.
std::string CheckRefusal(const nlohmann::json& test) {
  absl::StatusOr<std::unique_ptr<MetricSet>> metrics = MakeSet(test.at("spec"));
  if (!metrics.ok()) return metrics.status().ToString();
  std::string message;
  try {
    for (const auto& update : test.at("updates")) {
      if (update == "reset") continue;
      (*metrics)->Update(BatchOf(update.at("input")), BatchOf(update.at("target")));
      const absl::Status status = (*metrics)->Average().status();
      if (!status.ok()) message = std::string(status.message());
    }
  } catch (const c10::Error& error) {
    message = error.what_without_backtrace();
  }
  const bool refused = absl::StrContains(message, "declare Scores::kLogits");
  return refused ? "" : "logits are not refused: \"" + message + "\"";
}

// `ours`: the answers of this library where the case itself is a listed deviation. One that deviates by a rule and is
// not listed, of a file that nobody has looked through, is only required to run.
std::string CheckBothRules(const nlohmann::json& test, bool listed, const nlohmann::json& ours) {
  const std::vector<std::string> rules = DeviationsOf(test);
  if (std::none_of(rules.begin(), rules.end(), AlsoByRecordersRules)) {
    if (std::string text = CheckContainer(test); !text.empty()) return text;
  }
  const WithDefaults defaults;
  nlohmann::json expected = test;
  if (!rules.empty()) {
    if (std::find(rules.begin(), rules.end(), kIgnoreIndex) != rules.end())
      return CheckFailure({{"error", "ValueError"}}, [&] { return MakeSet(test.at("spec")).status(); });
    if (ours.is_null()) return listed ? "deviations.json has no answers; ours: " + OursOf(test) : CheckRuns(test);
    expected["initial"] = ours.at("initial");
    expected["after"] = ours.at("after");
  }
  std::string text = CheckContainer(expected);
  if (text.empty() && HasLogits(test)) text = CheckRefusal(test);
  if (text.empty()) return "";
  return "with the defaults: " + text + (rules.empty() ? "" : "; ours: " + OursOf(test));
}

// {"case": our answers} of the cases that deviations.json lists.
nlohmann::json OurAnswers() {
  std::ifstream in(ATHANOR_ORACLE_DEVIATIONS);
  return nlohmann::json::parse(in).value("metric_containers_answers", nlohmann::json::object());
}

void Containers(const nlohmann::json& file, Report& report) {
  const nlohmann::json answers = OurAnswers();
  for (const auto& test : file.at("cases")) {
    const std::string id = test.at("id").get<std::string>();
    std::vector<std::string> rules = DeviationsOf(test);
    if (rules.empty() && HasLogits(test)) rules.push_back(kLogits);
    const auto check = [&]() -> std::string {
      if (!rules.empty() && report.deviation(id).empty() && report.deviation(rules[0]).empty())
        return "a deviation that deviations.json does not list: " + rules[0];
      return CheckBothRules(test, !report.deviation(id).empty(), answers.value(id, nlohmann::json()));
    };
    report.Case(id, check, rules.empty() ? "" : rules[0]);
  }
}

void Tasks(const nlohmann::json& file, Report& report) {
  for (const auto& test : file.at("cases")) {
    report.Case(test.at("id").get<std::string>(), [&] { return UnderBothRules([&] { return CheckTasks(test); }); });
  }
}

}  // namespace

ATHANOR_ORACLE_FAMILY(metric_containers, Containers);
ATHANOR_ORACLE_FAMILY(multitask_metrics, Tasks);

}  // namespace athanor::oracle
