// Numbers in JSON, which has no NaN and no infinity: those as texts, "nan", "inf", "-inf". Finite ones keep every bit.
#pragma once

#include <cmath>
#include <map>
#include <string>

#include <nlohmann/json.hpp>
#include "absl/strings/str_cat.h"

namespace athanor {

inline nlohmann::json NumberToJson(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(absl::StrCat(value));
}

// Throws nlohmann::json::exception or std::exception for what is no number.
inline double NumberFromJson(const nlohmann::json& json) {
  return json.is_string() ? std::stod(json.get<std::string>()) : json.get<double>();
}

inline nlohmann::json NumbersToJson(const std::map<std::string, double>& numbers) {
  nlohmann::json json = nlohmann::json::object();
  for (const auto& [name, value] : numbers) json[name] = NumberToJson(value);
  return json;
}

inline std::map<std::string, double> NumbersFromJson(const nlohmann::json& json) {
  std::map<std::string, double> numbers;
  for (const auto& [name, value] : json.items()) numbers[name] = NumberFromJson(value);
  return numbers;
}

}  // namespace athanor
