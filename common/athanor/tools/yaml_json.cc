#include "athanor/tools/yaml_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <yaml-cpp/yaml.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/json_text.h"

namespace athanor {
namespace {

using nlohmann::json;

// Anchors may make a document endless, or enormous: what it becomes is bounded by its own size.
constexpr int kMaxDepth = 200;
constexpr size_t kFree = 200'000, kPerByte = 10;  // values and bytes of text

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
  if (const auto [stop, error] = std::from_chars(begin, end, number);
      digits && error == std::errc() && stop == end && !std::isnan(number))
    return number;
  return text;
}

// One value of a document, or the key of one.
void Check(const YAML::Node& node, int depth, size_t* left) {
  if (depth > kMaxDepth) throw YAML::Exception(node.Mark(), "nested too deeply");
  const size_t price = node.IsScalar() ? 1 + node.Scalar().size() : 1;
  if (price > *left) throw YAML::Exception(node.Mark(), "too large: anchors repeat too much");
  *left -= price;
  if (node.IsScalar() && !IsUtf8(node.Scalar())) throw YAML::Exception(node.Mark(), "text that is not UTF-8");
}

json ValueOf(const YAML::Node& node, int depth, size_t* left) {
  Check(node, depth, left);
  if (node.IsMap()) {
    json map = json::object();
    for (const auto& item : node) {
      if (!item.first.IsScalar()) throw YAML::Exception(item.first.Mark(), "a key is no scalar");
      Check(item.first, depth, left);
      const std::string& key = item.first.Scalar();
      if (map.contains(key)) throw YAML::Exception(item.first.Mark(), "the key \"" + key + "\" is there twice");
      map[key] = ValueOf(item.second, depth + 1, left);
    }
    return map;
  }
  if (node.IsSequence()) {
    json list = json::array();
    for (const YAML::Node& item : node) list.push_back(ValueOf(item, depth + 1, left));
    return list;
  }
  return node.IsScalar() ? ScalarOf(node) : json(nullptr);
}

// The emitter leaves some characters as they are that a reader takes for ends of lines, or drops.
bool NeedsEscapes(const std::string& text) {
  static constexpr absl::string_view kInvisible[] = {"\xc2\x85", "\xe2\x80\xa8", "\xe2\x80\xa9", "\xef\xbb\xbf"};
  return std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }) ||
         std::any_of(std::begin(kInvisible), std::end(kInvisible),
                     [&](absl::string_view one) { return absl::StrContains(text, one); });
}

void EmitText(const std::string& text, bool quoted, YAML::Emitter* out) {
  if (quoted || NeedsEscapes(text)) *out << YAML::DoubleQuoted;
  *out << text;
}

void Emit(const json& value, YAML::Emitter* out) {
  if (value.is_object()) {
    *out << YAML::BeginMap;
    for (const auto& [key, item] : value.items()) {
      *out << YAML::Key;
      EmitText(key, /*quoted=*/false, out);
      *out << YAML::Value;
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
    EmitText(text, !ScalarOf(YAML::Node(text)).is_string(), out);
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
    size_t left = kFree + kPerByte * text.size();
    return ValueOf(YAML::Load(text), 0, &left);
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
