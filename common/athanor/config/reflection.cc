#include "athanor/config/reflection.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "athanor/base/near_names.h"

namespace athanor {
namespace {

std::string Folded(absl::string_view name) {
  return absl::StrReplaceAll(absl::AsciiStrToLower(absl::StripAsciiWhitespace(name)), {{"-", "_"}});
}

std::string RangeText(absl::string_view kind, const FieldRule* rule) {
  std::string text(kind);
  if (rule == nullptr) return text;
  if (std::isfinite(rule->min)) absl::StrAppend(&text, rule->min_open ? " > " : " >= ", NumberText(rule->min));
  if (std::isfinite(rule->max)) {
    absl::StrAppend(&text, std::isfinite(rule->min) ? " and" : "",
                    rule->max_open ? " < " : " <= ", NumberText(rule->max));
  }
  return text;
}

bool InRange(double value, const FieldRule* rule) {
  if (rule == nullptr) return true;
  const bool above = rule->min_open ? value > rule->min : value >= rule->min;
  const bool below = rule->max_open ? value < rule->max : value <= rule->max;
  return above && below;
}

}  // namespace

const FieldRule* FindRule(std::span<const FieldRule> rules, absl::string_view name) {
  for (const FieldRule& rule : rules) {
    if (rule.name == name) return &rule;
  }
  return nullptr;
}

const FieldRule* FindRuleByKey(std::span<const FieldRule> rules, absl::string_view key) {
  for (const FieldRule& rule : rules) {
    if (rule.name == key || (!rule.alias.empty() && rule.alias == key)) return &rule;
  }
  return nullptr;
}

std::string UnknownKeyMessage(absl::string_view key, std::span<const std::string> allowed) {
  const std::string nearest = NearestName(key, allowed);
  std::string message = "unknown key";
  if (!nearest.empty()) absl::StrAppend(&message, ", did you mean \"", nearest, "\"?");
  return absl::StrCat(message, nearest.empty() ? "; allowed: " : " allowed: ", absl::StrJoin(allowed, ", "));
}

std::string DescribeJson(const nlohmann::json& value) {
  constexpr size_t kShown = 60;
  if (value.is_null()) return "null";
  if (value.is_number_float()) return absl::StrCat(NumberText(value.get<double>()), " (number)");
  std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kShown) text = absl::StrCat(text.substr(0, kShown), "…");
  if (value.is_string()) return absl::StrCat(text, " (string)");
  if (value.is_boolean()) return absl::StrCat(text, " (boolean)");
  if (value.is_number()) return absl::StrCat(text, " (integer)");
  return absl::StrCat(text, value.is_array() ? " (list)" : " (mapping)");
}

std::string JoinPath(absl::string_view parent, absl::string_view key) {
  return parent.empty() ? std::string(key) : absl::StrCat(parent, ".", key);
}

std::string NumberText(double value) {
  char buffer[40];
  const auto result = std::to_chars(buffer, buffer + sizeof(buffer), value);
  return std::string(buffer, result.ptr);
}

namespace reflection_internal {

void AddTypeProblem(const nlohmann::json& json, const std::string& path, absl::string_view allowed,
                    Problems* problems) {
  problems->push_back({path, absl::StrCat("found ", DescribeJson(json), "; allowed: ", allowed)});
}

bool ReadBool(const nlohmann::json& json, const std::string& path, bool* out, Problems* problems) {
  if (!json.is_boolean()) {
    AddTypeProblem(json, path, "true or false", problems);
    return false;
  }
  *out = json.get<bool>();
  return true;
}

bool ReadInteger(const nlohmann::json& json, const std::string& path, const FieldRule* rule, int64_t lowest,
                 int64_t highest, int64_t* out, Problems* problems) {
  constexpr double kExact = 9007199254740992.0;  // 2^53: integers beyond are not all representable
  bool good = json.is_number();
  int64_t value = 0;
  if (json.is_number_unsigned()) {
    const uint64_t wide = json.get<uint64_t>();
    good = wide <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    value = static_cast<int64_t>(wide);
  } else if (json.is_number_integer()) {
    value = json.get<int64_t>();
  } else if (json.is_number_float()) {  // 1e5 is a whole number too
    const double number = json.get<double>();
    good = std::abs(number) <= kExact && std::trunc(number) == number;
    if (good) value = static_cast<int64_t>(number);
  }
  if (!good || value < lowest || value > highest || !InRange(static_cast<double>(value), rule)) {
    AddTypeProblem(json, path, RangeText("integer", rule), problems);
    return false;
  }
  *out = value;
  return true;
}

bool ReadNumber(const nlohmann::json& json, const std::string& path, const FieldRule* rule, double* out,
                Problems* problems) {
  if (!json.is_number() || !std::isfinite(json.get<double>()) || !InRange(json.get<double>(), rule)) {
    AddTypeProblem(json, path, RangeText("number", rule), problems);
    return false;
  }
  *out = json.get<double>();
  return true;
}

bool ReadString(const nlohmann::json& json, const std::string& path, const FieldRule* rule, std::string* out,
                Problems* problems) {
  if (rule == nullptr || rule->allowed.empty()) {
    if (!json.is_string()) {
      AddTypeProblem(json, path, "string", problems);
      return false;
    }
    *out = json.get<std::string>();
    return true;
  }
  std::vector<std::string> names;
  for (absl::string_view choice : rule->allowed) {
    const std::vector<absl::string_view> spellings = absl::StrSplit(choice, '|');
    if (json.is_string()) {
      const std::string wanted = Folded(json.get<std::string>());
      for (absl::string_view spelling : spellings) {
        if (wanted != spelling) continue;
        *out = std::string(spellings.front());
        return true;
      }
    }
    if (!spellings.front().empty()) names.emplace_back(spellings.front());
  }
  const std::string nearest = json.is_string() ? NearestName(json.get<std::string>(), names) : "";
  AddTypeProblem(json, path, absl::StrCat("one of ", absl::StrJoin(names, ", ")), problems);
  if (!nearest.empty()) absl::StrAppend(&problems->back().message, "; did you mean \"", nearest, "\"?");
  return false;
}

}  // namespace reflection_internal
}  // namespace athanor
