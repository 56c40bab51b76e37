#include "tests/oracle/replay.h"

#include <cmath>
#include <cstdio>
#include <map>
#include <sstream>
#include <stdexcept>

namespace athanor::oracle {
namespace {

std::map<std::string, Family>& Registry() {
  static std::map<std::string, Family> families;
  return families;
}

// The first line of an exception's text: LibTorch appends a whole backtrace.
std::string FirstLine(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

std::string Show(double value) {
  char text[40];
  std::snprintf(text, sizeof(text), "%.17g", value);
  return text;
}

double Tolerance(torch::Dtype dtype) {
  switch (dtype) {
    case torch::kFloat64:
      return 1e-12;
    case torch::kFloat32:
      return 1e-5;
    case torch::kFloat16:
    case torch::kBFloat16:
      return 1e-2;
    default:
      return 0;
  }
}

std::string ShapeText(const torch::Tensor& tensor) {
  std::ostringstream out;
  out << tensor.dtype() << tensor.sizes();
  return out.str();
}

}  // namespace

void Report::Case(const std::string& name, const std::function<std::string()>& check, const std::string& alias) {
  cases_.insert(name);
  cases_.insert(alias);
  std::string failure;
  try {
    failure = check();
  } catch (const std::exception& error) {
    failure = "threw: " + FirstLine(error.what());
  }
  if (!failure.empty()) {
    ++failed_;
    std::printf("FAILED %s: %s\n", name.c_str(), failure.c_str());
    return;
  }
  ++passed_;
  if (!deviation(name).empty() || !deviation(alias).empty()) ++deviating_;
}

std::string Report::deviation(const std::string& name) const {
  const auto found = deviations_.find(name);
  if (found == deviations_.end()) return "";
  return found->is_object() ? found->at("reason").get<std::string>() : found->get<std::string>();
}

nlohmann::json Report::answer(const std::string& name, const std::string& id) const {
  const auto found = deviations_.find(name);
  if (found == deviations_.end() || !found->is_object()) return nullptr;
  return found->value("answers", nlohmann::json::object()).value(id, nlohmann::json());
}

std::vector<std::string> Report::NamingNoCase(const nlohmann::json& entries) const {
  std::vector<std::string> none;
  for (const auto& [name, value] : entries.items()) {
    if (name.find(": ") == std::string::npos && !cases_.contains(name)) none.push_back(name);
  }
  return none;
}

bool RegisterFamily(std::string name, Family family) {
  return Registry().emplace(std::move(name), family).second;
}

Family FindFamily(const std::string& name) {
  const auto found = Registry().find(name);
  return found == Registry().end() ? nullptr : found->second;
}

std::vector<std::string> FamilyNames() {
  std::vector<std::string> names;
  for (const auto& [name, family] : Registry()) names.push_back(name);
  return names;
}

double Number(const nlohmann::json& value) {
  if (value.is_number()) return value.get<double>();
  if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
  if (value.is_null()) return std::nan("");
  const std::string text = value.get<std::string>();
  if (text == "nan") return std::nan("");
  if (text == "inf") return HUGE_VAL;
  if (text == "-inf") return -HUGE_VAL;
  throw std::invalid_argument("'" + text + "' is no number");
}

torch::Dtype DtypeOf(const std::string& name) {
  static const std::map<std::string, torch::Dtype> dtypes = {
      {"f64", torch::kFloat64}, {"f32", torch::kFloat32}, {"f16", torch::kFloat16}, {"bf16", torch::kBFloat16},
      {"i64", torch::kInt64},   {"i32", torch::kInt32},   {"u8", torch::kUInt8},    {"bool", torch::kBool}};
  const auto found = dtypes.find(name);
  if (found == dtypes.end()) throw std::invalid_argument("unknown dtype '" + name + "'");
  return found->second;
}

bool IsTensor(const nlohmann::json& value) {
  return value.is_object() && value.contains("dtype") && value.contains("shape") && value.contains("data");
}

torch::Device& Place() {
  static torch::Device device = torch::kCPU;
  return device;
}

torch::Tensor TensorOf(const nlohmann::json& value) {
  const torch::Dtype dtype = DtypeOf(value.at("dtype").get<std::string>());
  const auto shape = value.at("shape").get<std::vector<int64_t>>();
  const nlohmann::json& data = value.at("data");
  if (!torch::isFloatingType(dtype)) {
    std::vector<int64_t> integers;
    for (const auto& item : data) integers.push_back(item.is_boolean() ? item.get<bool>() : item.get<int64_t>());
    return torch::tensor(integers, torch::kInt64).reshape(shape).to(Place(), dtype);
  }
  std::vector<double> numbers;
  for (const auto& item : data) numbers.push_back(Number(item));
  return torch::tensor(numbers, torch::kFloat64).reshape(shape).to(Place(), dtype);
}

std::string Compare(double expected, double found, double relative, std::string_view what) {
  if (std::isnan(expected) && std::isnan(found)) return "";
  if (expected == found) return "";
  if (std::abs(expected - found) <= relative * std::max(1.0, std::abs(expected))) return "";
  return std::string(what) + ": expected " + Show(expected) + ", found " + Show(found);
}

std::string Compare(const torch::Tensor& expected, const torch::Tensor& found, double relative, std::string_view what) {
  if (expected.dtype() != found.dtype() || expected.sizes() != found.sizes()) {
    return std::string(what) + ": expected " + ShapeText(expected) + ", found " + ShapeText(found);
  }
  if (relative == 0) relative = Tolerance(expected.scalar_type());
  const torch::Tensor a = expected.detach().to(torch::kCPU, torch::kFloat64).contiguous().flatten();
  const torch::Tensor b = found.detach().to(torch::kCPU, torch::kFloat64).contiguous().flatten();
  for (int64_t i = 0; i < a.numel(); ++i) {
    const std::string place = std::string(what) + "[" + std::to_string(i) + "]";
    if (std::string text = Compare(a.data_ptr<double>()[i], b.data_ptr<double>()[i], relative, place); !text.empty())
      return text;
  }
  return "";
}

std::string FirstOf(std::initializer_list<std::string> texts) {
  for (const std::string& text : texts) {
    if (!text.empty()) return text;
  }
  return "";
}

}  // namespace athanor::oracle
