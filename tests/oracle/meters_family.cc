// Meters by operation, and the text form of results.
#include <fstream>

#include "athanor/metrics/average_meter.h"
#include "athanor/tools/dict.h"
#include "tests/oracle/metric_case.h"

namespace athanor::oracle {
namespace {

torch::Tensor ValueOf(const nlohmann::json& value) {
  return IsTensor(value) ? TensorOf(value) : torch::tensor(Number(value), torch::kFloat64);
}

// The sums of float64 are compared to the last bits that their order of addition leaves.
std::string CompareMeter(const nlohmann::json& expected, const torch::Tensor& found, const std::string& what) {
  if (IsTensor(expected)) return Compare(TensorOf(expected), found, 1e-12, what);
  if (found.dim() != 0) return what + ": expected one number";
  return Compare(Number(expected), found.item<double>(), 1e-12, what);
}

std::string CompareText(const nlohmann::json& expected, const std::string& found) {
  return expected.get<std::string>() == found ? "" : "text: expected " + expected.dump() + ", found \"" + found + "\"";
}

std::string CheckMeter(const nlohmann::json& test) {
  AverageMeter meter;
  for (size_t i = 0; i < test.at("ops").size(); ++i) {
    const nlohmann::json& op = test["ops"][i];
    const nlohmann::json& expected = test["after"][i];
    const auto run = [&] {
      if (op.at("op") == "reset")
        meter.Reset();
      else
        meter.Update(ValueOf(op.at("value")), op.value("n", int64_t{1}));
      return absl::OkStatus();
    };
    std::string text;
    if (IsError(expected)) {
      text = CheckFailure(expected, run);
    } else {
      run().IgnoreError();
      text = FirstOf({CompareMeter(expected.at("val"), meter.Value(), "val"),
                      CompareMeter(expected.at("bat"), *meter.Batch(), "bat"),
                      CompareMeter(expected.at("avg"), *meter.Average(), "avg"),
                      CompareMeter(expected.at("sum"), meter.Sum(), "sum"),
                      Compare(Number(expected.at("count")), static_cast<double>(meter.count()), 0, "count"),
                      Compare(Number(expected.at("n")), static_cast<double>(meter.n()), 0, "n"),
                      CompareText(expected.at("repr_4f"), meter.Text(4))});
    }
    if (!text.empty()) return "after op " + std::to_string(i) + ": " + text;
  }
  return "";
}

std::string CompareByName(const nlohmann::json& expected, const MetricValues& found, const std::string& what) {
  if (expected.size() != found.size()) return what + ": another number of meters";
  for (const auto& [name, value] : found) {
    if (!expected.contains(name)) return what + ": no '" + name + "'";
    if (std::string text = CompareMeter(expected[name], value, what + "." + name); !text.empty()) return text;
  }
  return "";
}

std::string CompareCounts(const nlohmann::json& expected, const std::vector<std::pair<std::string, int64_t>>& found,
                          const std::string& what) {
  for (const auto& [name, count] : found) {
    if (Number(expected.at(name)) != static_cast<double>(count))
      return what + "." + name + " is " + std::to_string(count);
  }
  return "";
}

void Apply(const nlohmann::ordered_json& op, AverageMeters& meters) {
  if (op.at("op") == "reset") return meters.Reset();
  const auto update = [&](const std::string& name, const nlohmann::json& value, int64_t n) {
    meters.Update(name, ValueOf(value), n);
  };
  if (op["op"] == "update_one") return update(op.at("name"), op.at("value"), op.value("n", int64_t{1}));
  for (const auto& [name, value] : op.at("values").items()) update(name, value, 1);
}

std::string CheckMeters(const nlohmann::ordered_json& test) {
  AverageMeters meters;
  for (size_t i = 0; i < test.at("ops").size(); ++i) {
    const nlohmann::json expected = test["after"][i];
    const auto run = [&] {
      Apply(test["ops"][i], meters);
      return absl::OkStatus();
    };
    std::string text;
    if (IsError(expected)) {
      text = CheckFailure(expected, run);
    } else {
      run().IgnoreError();
      text = FirstOf({CompareByName(expected.at("val"), meters.Value(), "val"),
                      CompareByName(expected.at("bat"), *meters.Batch(), "bat"),
                      CompareByName(expected.at("avg"), *meters.Average(), "avg"),
                      CompareByName(expected.at("sum"), meters.Sum(), "sum"),
                      CompareCounts(expected.at("count"), meters.count(), "count"),
                      CompareCounts(expected.at("n"), meters.n(), "n"),
                      CompareText(expected.at("format_4f"), meters.Text(4))});
      if (text.empty() && expected.at("names").get<std::vector<std::string>>() != meters.names()) text = "other names";
    }
    if (!text.empty()) return "after op " + std::to_string(i) + ": " + text;
  }
  return "";
}

// Recorded "nan" and vectors as numbers and lists.
nlohmann::ordered_json Plain(const nlohmann::ordered_json& value) {
  if (value == "nan") return std::nan("");
  if (value.is_object() && value.contains("dtype") && value.contains("data")) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const auto& item : value["data"]) list.push_back(Number(item));
    return list;
  }
  if (!value.is_object()) return value;
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const auto& [key, item] : value.items()) object[key] = Plain(item);
  return object;
}

std::string CompareRounded(const nlohmann::json& expected, const nlohmann::json& found, const std::string& what) {
  if (expected.is_object()) {
    for (const auto& [key, value] : expected.items()) {
      if (std::string text = CompareRounded(value, found.at(key), what + "." + key); !text.empty()) return text;
    }
    return "";
  }
  if (expected.is_array()) {
    for (size_t i = 0; i < expected.size(); ++i) {
      if (std::string text = CompareRounded(expected[i], found.at(i), what); !text.empty()) return text;
    }
    return "";
  }
  if (found.is_string()) return expected == found ? "" : what + " differs";
  return Compare(Number(expected), Number(found), 1e-12, what);
}

std::string CheckFormat(const nlohmann::ordered_json& test) {
  const nlohmann::ordered_json input = Plain(test.at("input"));
  const nlohmann::ordered_json& expected = test.at("expected");
  const nlohmann::json rounded = RoundDict(nlohmann::json(input)).Round(8).ToJson();
  return FirstOf({CompareText(expected.at("format_4f"), FormatResults(input)),
                  CompareRounded(expected.at("rounded8"), rounded, "rounded")});
}

void Replay(const nlohmann::json&, Report& report) {
  std::ifstream in(report.path());
  const nlohmann::ordered_json file = nlohmann::ordered_json::parse(in);  // keys in the order of the file
  for (const auto& test : file.at("cases")) {
    report.Case(test.at("id").get<std::string>(), [&] {
      if (test.at("kind") == "AverageMeter") return CheckMeter(test);
      return test["kind"] == "AverageMeters" ? CheckMeters(test) : CheckFormat(test);
    });
  }
}

}  // namespace

ATHANOR_ORACLE_FAMILY(meters, Replay);

}  // namespace athanor::oracle
