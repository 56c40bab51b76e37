#include "athanor/tools/yaml_json.h"

#include <charconv>
#include <cmath>

#include <yaml-cpp/yaml.h>

#include "absl/strings/str_cat.h"

namespace athanor {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 200;            // anchors may make a document endless
constexpr size_t kMaxNodes = 10'000'000;  // or enormous

json ScalarOf(const YAML::Node& node) {
  const std::string& text = node.Scalar();
  if (node.Tag() == "!") return text;  // quoted
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") return nullptr;
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  if (text == ".nan" || text == ".NaN") return std::nan("");
  if (text == ".inf" || text == "+.inf") return HUGE_VAL;
  if (text == "-.inf") return -HUGE_VAL;
  const char* begin = text.data() + (text[0] == '+' ? 1 : 0);
  const char* end = text.data() + text.size();
  int64_t whole = 0;
  if (const auto [stop, error] = std::from_chars(begin, end, whole); error == std::errc() && stop == end) return whole;
  double number = 0;
  const bool digits = text.find_first_of("0123456789") != std::string::npos;
  if (const auto [stop, error] = std::from_chars(begin, end, number); digits && error == std::errc() && stop == end)
    return number;
  return text;
}

struct Budget {
  size_t nodes = 0;
};

json ValueOf(const YAML::Node& node, int depth, Budget* budget) {
  if (depth > kMaxDepth || ++budget->nodes > kMaxNodes)
    throw YAML::Exception(node.Mark(), "nested too deeply, or too large");
  if (node.IsMap()) {
    json map = json::object();
    for (const auto& item : node) {
      if (!item.first.IsScalar()) throw YAML::Exception(item.first.Mark(), "a key is no scalar");
      map[item.first.Scalar()] = ValueOf(item.second, depth + 1, budget);
    }
    return map;
  }
  if (node.IsSequence()) {
    json list = json::array();
    for (const YAML::Node& item : node) list.push_back(ValueOf(item, depth + 1, budget));
    return list;
  }
  return node.IsScalar() ? ScalarOf(node) : json(nullptr);
}

void Emit(const json& value, YAML::Emitter* out) {
  if (value.is_object()) {
    *out << YAML::BeginMap;
    for (const auto& [key, item] : value.items()) {
      *out << YAML::Key << key << YAML::Value;
      Emit(item, out);
    }
    *out << YAML::EndMap;
  } else if (value.is_array()) {
    *out << YAML::BeginSeq;
    for (const json& item : value) Emit(item, out);
    *out << YAML::EndSeq;
  } else if (value.is_string()) {
    // Quoted where a plain scalar would be read as something else.
    const std::string& text = value.get_ref<const std::string&>();
    const bool plain = ScalarOf(YAML::Node(text)).is_string();
    if (plain) {
      *out << text;
    } else {
      *out << YAML::DoubleQuoted << text;
    }
  } else if (value.is_number_float() && !std::isfinite(value.get<double>())) {
    const double number = value.get<double>();
    *out << (std::isnan(number) ? ".nan" : number > 0 ? ".inf" : "-.inf");
  } else if (value.is_null()) {
    *out << YAML::Null;
  } else {
    *out << value.dump();
  }
}

}  // namespace

absl::StatusOr<json> ParseYaml(const std::string& text) {
  try {
    Budget budget;
    return ValueOf(YAML::Load(text), 0, &budget);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("line ", error.mark.line + 1, ", column ", error.mark.column + 1, ": ", error.msg));
  }
}

std::string FormatYaml(const json& value) {
  YAML::Emitter out;
  Emit(value, &out);
  return std::string(out.c_str(), out.size()) + "\n";
}

}  // namespace athanor
