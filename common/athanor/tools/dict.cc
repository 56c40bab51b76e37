#include "athanor/tools/dict.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace athanor {
namespace {

using nlohmann::json;

double Rounded(double value, int digits) {
  const double scale = std::pow(10.0, digits);
  const double rounded = std::nearbyint(value * scale) / scale;
  return std::isfinite(rounded) ? rounded : value;
}

json Rounded(const json& value, int digits) {
  if (value.is_number_float()) return Rounded(value.get<double>(), digits);
  if (!value.is_structured()) return value;
  json copy = value;
  for (json& item : copy) item = Rounded(item, digits);
  return copy;
}

void AddLines(const json& value, const std::string& path, std::string* text) {
  if (!value.is_object()) {
    absl::StrAppend(text, path, ": ", value.dump(-1, ' ', false, json::error_handler_t::replace), "\n");
    return;
  }
  for (const auto& [key, item] : value.items()) AddLines(item, path.empty() ? key : absl::StrCat(path, ".", key), text);
}

}  // namespace

bool IsJsonSerializable(const json& value) {
  if (value.is_number_float()) return std::isfinite(value.get<double>());
  if (value.is_binary() || value.is_discarded()) return false;
  if (value.is_string()) {
    try {
      (void)value.dump();  // throws for text that is not UTF-8
      return true;
    } catch (const json::exception&) {
      return false;
    }
  }
  if (value.is_object()) {
    for (const auto& [key, item] : value.items()) {
      if (!IsJsonSerializable(key) || !IsJsonSerializable(item)) return false;
    }
  } else if (value.is_array()) {
    for (const json& item : value) {
      if (!IsJsonSerializable(item)) return false;
    }
  }
  return true;
}

std::vector<std::string> FlatDict::keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : values_.items()) keys.push_back(key);
  return keys;
}

absl::Status FlatDict::Missing(const std::string& key) const {
  return absl::NotFoundError(absl::StrCat("no key \"", key, "\"; there are: ", absl::StrJoin(keys(), ", ")));
}

FlatDict FlatDict::Difference(const FlatDict& other) const {
  FlatDict result;
  for (const auto& [key, value] : values_.items()) {
    const auto found = other.values_.find(key);
    if (found == other.values_.end() || *found != value) result.values_[key] = value;
  }
  return result;
}

FlatDict FlatDict::Intersection(const FlatDict& other) const {
  FlatDict result;
  for (const auto& [key, value] : values_.items()) {
    const auto found = other.values_.find(key);
    if (found != other.values_.end() && *found == value) result.values_[key] = value;
  }
  return result;
}

void RoundDict::Set(const std::string& path, json value) {
  json* place = &values_;
  for (const absl::string_view part : absl::StrSplit(path, '.')) {
    if (!place->is_object()) *place = json::object();
    place = &(*place)[std::string(part)];
  }
  *place = std::move(value);
}

absl::StatusOr<json> RoundDict::Find(const std::string& path) const {
  const json* place = &values_;
  for (const absl::string_view part : absl::StrSplit(path, '.')) {
    const auto found = place->is_object() ? place->find(std::string(part)) : place->end();
    if (found == place->end()) return absl::NotFoundError(absl::StrCat("no \"", path, "\": \"", part, "\" is missing"));
    place = &*found;
  }
  return *place;
}

RoundDict RoundDict::Round(int digits) const {
  return RoundDict(Rounded(values_, digits));
}

std::string RoundDict::ToString() const {
  std::string text;
  AddLines(values_, "", &text);
  return text;
}

namespace {

std::string FormatNumber(double value, const char* format, int decimals) {
  char text[400];
  std::snprintf(text, sizeof(text), format, decimals, value);
  return text;
}

std::string FormatLeaf(const nlohmann::ordered_json& value, int decimals) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_number_float()) {
    const double number = value.get<double>();
    return std::isnan(number) ? "   NaN  " : FormatNumber(number, "% .*f", decimals);
  }
  if (!value.is_array()) return value.dump();
  std::string text;
  for (const auto& item : value) {
    absl::StrAppend(
        &text, text.empty() ? "" : " ",
        item.is_number_float() ? FormatNumber(item.get<double>(), "%.*f", decimals) : FormatLeaf(item, decimals));
  }
  return text;
}

std::string FormatMapping(const nlohmann::ordered_json& results, int decimals, size_t depth) {
  size_t longest = 0;
  for (const auto& [key, value] : results.items()) {
    if (value.is_object()) longest = std::max(longest, key.size());
  }
  std::string text;
  bool leaf_before = false;
  for (const auto& [key, value] : results.items()) {
    if (value.is_object()) {
      absl::StrAppend(&text, "\n", std::string(depth, '\t'), std::string(longest - key.size(), ' '), key, ": ",
                      FormatMapping(value, decimals, depth + 1));
    } else {
      absl::StrAppend(&text, leaf_before ? "\t" : "", key, ": ", FormatLeaf(value, decimals));
    }
    leaf_before = !value.is_object();
  }
  return text;
}

}  // namespace

std::string FormatResults(const nlohmann::ordered_json& results, int decimals) {
  return FormatMapping(results, decimals, 0);
}

}  // namespace athanor
