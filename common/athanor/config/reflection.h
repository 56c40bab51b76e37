// Reads JSON into structs described with Boost.Describe, and finds every mistake at once, each with its place.
//
//   struct Retry { int64_t limit = 3; std::optional<double> wait;
//                  static std::span<const FieldRule> Rules(); };         // optional: meanings and limits
//   BOOST_DESCRIBE_STRUCT(Retry, (), (limit, wait))
//   std::vector<FieldProblem> problems;
//   Retry retry;
//   CheckStruct(json, "job.retry", &retry, &problems);
//   // problems[0] = {"job.retry.limt", "unknown key, did you mean \"limit\"? allowed: limit, wait"}
//
// Member types: bool, integers, double, std::string, described structs, and std::optional, std::vector,
// std::map<std::string, T> of them. Absent keys keep the default; null is allowed for std::optional only. All functions
// are pure and thread-safe.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <boost/describe.hpp>
#include <boost/mp11.hpp>
#include <nlohmann/json.hpp>

#include "absl/strings/string_view.h"

namespace athanor {

struct FieldProblem {
  std::string path;     // "optim.lr", "optim.param_groups[1].pattern"
  std::string message;  // what was found and what is allowed
};

// One member's meaning and limits.
struct FieldRule {
  absl::string_view name;
  absl::string_view meaning;  // one sentence for the manual
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool min_open = false;  // > instead of >=
  bool max_open = false;  // < instead of <=
  // Of strings: the allowed values, "bf16|bfloat16" = canonical name first, then synonyms. Letter case and '-' / '_' do
  // not matter; the canonical name is stored. Empty: any string.
  std::vector<absl::string_view> allowed = {};
  absl::string_view alias = {};  // a second spelling of the key
  bool rest = false;  // of a std::map of structs: takes every key of the surrounding object whose value is an object
};

template <class T>
concept DescribedStruct = std::is_class_v<T> && boost::describe::has_describe_members<T>::value;

template <DescribedStruct T>
std::span<const FieldRule> RulesOf() {
  if constexpr (requires { T::Rules(); }) {
    return T::Rules();
  } else {
    return {};
  }
}

// Null when there is none. FindRule matches the name; FindRuleByKey also the alias.
const FieldRule* FindRule(std::span<const FieldRule> rules, absl::string_view name);
const FieldRule* FindRuleByKey(std::span<const FieldRule> rules, absl::string_view key);

// The candidate that `name` was most likely meant to be; empty when none is near.
std::string NearestName(absl::string_view name, std::span<const std::string> candidates);
// "unknown key, did you mean "lr"? allowed: lr, type"
std::string UnknownKeyMessage(absl::string_view key, std::span<const std::string> allowed);
// "\"abc\" (string)": the value, shortened, with its kind.
std::string DescribeJson(const nlohmann::json& value);
// "a.b", or "b" when the parent is the root (empty).
std::string JoinPath(absl::string_view parent, absl::string_view key);
// Shortest decimal text that reads back as the same number: "0.1", "1e-09", "25".
std::string NumberText(double value);

namespace reflection_internal {

using Problems = std::vector<FieldProblem>;

// Each writes *out and returns true, or adds a problem.
bool ReadBool(const nlohmann::json& json, const std::string& path, bool* out, Problems* problems);
bool ReadInteger(const nlohmann::json& json, const std::string& path, const FieldRule* rule, int64_t lowest,
                 int64_t highest, int64_t* out, Problems* problems);
bool ReadNumber(const nlohmann::json& json, const std::string& path, const FieldRule* rule, double* out,
                Problems* problems);
bool ReadString(const nlohmann::json& json, const std::string& path, const FieldRule* rule, std::string* out,
                Problems* problems);
void AddTypeProblem(const nlohmann::json& json, const std::string& path, absl::string_view allowed, Problems* problems);

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};
template <class T>
struct IsStringMap : std::false_type {};
template <class T>
struct IsStringMap<std::map<std::string, T>> : std::true_type {};

template <class T>
bool ReadValue(const nlohmann::json& json, const std::string& path, const FieldRule* rule, T* out, Problems* problems);

template <class T>
bool ReadVector(const nlohmann::json& json, const std::string& path, const FieldRule* rule, std::vector<T>* out,
                Problems* problems) {
  if (!json.is_array()) {
    AddTypeProblem(json, path, "a list", problems);
    return false;
  }
  out->clear();
  bool good = true;
  for (size_t i = 0; i < json.size(); ++i) {
    T element{};
    good &= ReadValue(json[i], path + "[" + std::to_string(i) + "]", rule, &element, problems);
    out->push_back(std::move(element));
  }
  return good;
}

template <class T>
bool ReadMap(const nlohmann::json& json, const std::string& path, const FieldRule* rule, std::map<std::string, T>* out,
             Problems* problems) {
  if (!json.is_object()) {
    AddTypeProblem(json, path, "a mapping", problems);
    return false;
  }
  out->clear();
  bool good = true;
  for (const auto& [key, value] : json.items()) {
    good &= ReadValue(value, JoinPath(path, key), rule, &(*out)[key], problems);
  }
  return good;
}

template <DescribedStruct T>
std::vector<std::string> KeysOf() {
  std::vector<std::string> keys;
  boost::mp11::mp_for_each<boost::describe::describe_members<T, boost::describe::mod_public>>([&](auto member) {
    const FieldRule* rule = FindRule(RulesOf<T>(), member.name);
    if (rule == nullptr || !rule->rest) keys.emplace_back(member.name);
  });
  return keys;
}

template <DescribedStruct T>
bool ReadKey(const std::string& key, const nlohmann::json& value, const std::string& path, T* out, Problems* problems) {
  const FieldRule* by_key = FindRuleByKey(RulesOf<T>(), key);
  const absl::string_view name = by_key != nullptr ? by_key->name : absl::string_view(key);
  bool known = false, good = true;
  boost::mp11::mp_for_each<boost::describe::describe_members<T, boost::describe::mod_public>>([&](auto member) {
    const FieldRule* rule = FindRule(RulesOf<T>(), member.name);
    auto& field = out->*member.pointer;
    using Field = std::remove_cvref_t<decltype(field)>;
    if (rule != nullptr && rule->rest) {
      if constexpr (IsStringMap<Field>::value) {
        if (!known && value.is_object()) {  // rest members come last: every named member was compared before
          known = true;
          good = ReadValue(value, path, nullptr, &field[key], problems);
        }
      }
    } else if (name == member.name) {
      known = true;
      good = ReadValue(value, path, rule, &field, problems);
    }
  });
  if (!known) {
    problems->push_back({path, UnknownKeyMessage(key, KeysOf<T>())});
    return false;
  }
  return good;
}

template <DescribedStruct T>
bool ReadStruct(const nlohmann::json& json, const std::string& path, T* out, Problems* problems) {
  if (!json.is_object()) {
    AddTypeProblem(json, path, "a mapping", problems);
    return false;
  }
  bool good = true;
  for (const auto& [key, value] : json.items()) {
    const FieldRule* rule = FindRuleByKey(RulesOf<T>(), key);
    if (rule != nullptr && key == rule->alias && json.contains(std::string(rule->name))) {
      problems->push_back(
          {JoinPath(path, key), "a second spelling of \"" + std::string(rule->name) + "\": set one of the two"});
      good = false;
      continue;
    }
    good &= ReadKey(key, value, JoinPath(path, key), out, problems);
  }
  return good;
}

template <class T>
bool ReadValue(const nlohmann::json& json, const std::string& path, const FieldRule* rule, T* out, Problems* problems) {
  if constexpr (IsOptional<T>::value) {
    if (json.is_null()) {
      out->reset();
      return true;
    }
    typename T::value_type value{};
    if (!ReadValue(json, path, rule, &value, problems)) return false;
    *out = std::move(value);
    return true;
  } else if constexpr (std::is_same_v<T, bool>) {
    return ReadBool(json, path, out, problems);
  } else if constexpr (std::is_integral_v<T>) {
    int64_t value = 0;
    const int64_t highest =
        sizeof(T) == 8 ? std::numeric_limits<int64_t>::max() : static_cast<int64_t>(std::numeric_limits<T>::max());
    const int64_t lowest = std::is_unsigned_v<T> ? 0 : static_cast<int64_t>(std::numeric_limits<T>::min());
    if (!ReadInteger(json, path, rule, lowest, highest, &value, problems)) return false;
    *out = static_cast<T>(value);
    return true;
  } else if constexpr (std::is_floating_point_v<T>) {
    double value = 0;
    if (!ReadNumber(json, path, rule, &value, problems)) return false;
    *out = static_cast<T>(value);
    return true;
  } else if constexpr (std::is_same_v<T, std::string>) {
    return ReadString(json, path, rule, out, problems);
  } else if constexpr (IsVector<T>::value) {
    return ReadVector(json, path, rule, out, problems);
  } else if constexpr (IsStringMap<T>::value) {
    return ReadMap(json, path, rule, out, problems);
  } else {
    static_assert(DescribedStruct<T>, "describe the struct with BOOST_DESCRIBE_STRUCT");
    return ReadStruct(json, path, out, problems);
  }
}

template <class T>
nlohmann::json WriteValue(const T& value);

template <DescribedStruct T>
nlohmann::json WriteStruct(const T& value) {
  nlohmann::json json = nlohmann::json::object();
  boost::mp11::mp_for_each<boost::describe::describe_members<T, boost::describe::mod_public>>([&](auto member) {
    const FieldRule* rule = FindRule(RulesOf<T>(), member.name);
    const auto& field = value.*member.pointer;
    if constexpr (IsStringMap<std::remove_cvref_t<decltype(field)>>::value) {
      if (rule != nullptr && rule->rest) {
        for (const auto& [key, element] : field) json[key] = WriteValue(element);
        return;
      }
    }
    json[member.name] = WriteValue(field);
  });
  return json;
}

template <class T>
nlohmann::json WriteValue(const T& value) {
  if constexpr (IsOptional<T>::value) {
    return value.has_value() ? WriteValue(*value) : nlohmann::json(nullptr);
  } else if constexpr (IsVector<T>::value) {
    nlohmann::json list = nlohmann::json::array();
    for (const auto& element : value) list.push_back(WriteValue(element));
    return list;
  } else if constexpr (IsStringMap<T>::value) {
    nlohmann::json map = nlohmann::json::object();
    for (const auto& [key, element] : value) map[key] = WriteValue(element);
    return map;
  } else if constexpr (DescribedStruct<T>) {
    return WriteStruct(value);
  } else {
    return value;
  }
}

}  // namespace reflection_internal

// Reads `json` (a mapping) into *out. Adds one problem per mistake below `path` (empty: the root); fields with a
// mistake keep their earlier value. Returns true when nothing was added.
template <DescribedStruct T>
bool CheckStruct(const nlohmann::json& json, const std::string& path, T* out, std::vector<FieldProblem>* problems) {
  return reflection_internal::ReadStruct(json, path, out, problems);
}

// Every member, keys sorted; an unset std::optional is null. CheckStruct reads it back to an equal struct.
template <DescribedStruct T>
nlohmann::json StructToJson(const T& value) {
  return reflection_internal::WriteStruct(value);
}

}  // namespace athanor
