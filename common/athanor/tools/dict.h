// Named values with typed access: FlatDict, one level deep, and RoundDict, nested, for results that people read.
// Attribute access of Python (`results.val.loss`) becomes Get<double>("val.loss").
//
//   FlatDict settings({{"lr", 0.1}, {"name", "run"}});
//   ASSIGN_OR_RETURN(double lr, settings.Get<double>("lr"));
//   RoundDict results;
//   results.Set("val.loss", 0.123456789);
//   results.Round(4).ToJson().dump();               // {"val":{"loss":0.1235}}
//
// Plain values; not thread-safe.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace athanor {

// Whether the value survives writing as JSON and reading back: no NaN, no infinity, valid UTF-8 only.
bool IsJsonSerializable(const nlohmann::json& value);
// Whether a type can be put into JSON at all.
template <class T>
inline constexpr bool kIsJsonType = requires(nlohmann::json json, const T& value) { json = value; };

class FlatDict {
 public:
  FlatDict() = default;
  explicit FlatDict(nlohmann::json::initializer_list_t items) {
    const nlohmann::json pairs(items, false, nlohmann::json::value_t::array);
    for (const nlohmann::json& pair : pairs) values_[pair.at(0).get<std::string>()] = pair.at(1);
  }

  // Keys are taken as they are: dots have no meaning.
  void Set(const std::string& key, nlohmann::json value) { values_[key] = std::move(value); }
  bool Erase(const std::string& key) { return values_.erase(key) > 0; }
  bool Has(const std::string& key) const { return values_.contains(key); }
  size_t size() const { return values_.size(); }
  std::vector<std::string> keys() const;  // sorted
  // NOT_FOUND names the key and those that there are; INVALID_ARGUMENT when the value is of another type.
  template <class T>
  absl::StatusOr<T> Get(const std::string& key) const;
  // What `other` has wins.
  void Merge(const FlatDict& other) { values_.update(other.values_); }
  // The items that are not, or otherwise, in `other`; those that are the same in both.
  FlatDict Difference(const FlatDict& other) const;
  FlatDict Intersection(const FlatDict& other) const;
  const nlohmann::json& ToJson() const { return values_; }
  bool operator==(const FlatDict& other) const { return values_ == other.values_; }

 private:
  absl::Status Missing(const std::string& key) const;
  nlohmann::json values_ = nlohmann::json::object();
};

class RoundDict {
 public:
  RoundDict() = default;
  explicit RoundDict(nlohmann::json values) : values_(std::move(values)) {}

  // "val.loss" walks through mappings, and makes them.
  void Set(const std::string& path, nlohmann::json value);
  template <class T>
  absl::StatusOr<T> Get(const std::string& path) const;
  // A copy whose floating-point numbers have at most `digits` decimals; halves go to the even neighbour. Integers, NaN
  // and infinities stay. Digits may be negative.
  RoundDict Round(int digits) const;
  const nlohmann::json& ToJson() const { return values_; }
  // One leaf a line, "val.loss: 0.1235".
  std::string ToString() const;

 private:
  absl::StatusOr<nlohmann::json> Find(const std::string& path) const;
  nlohmann::json values_ = nlohmann::json::object();
};

// Results in one line, or a line for each mapping in them: "loss:  0.1235\tlr:  0.0010", then "\n   train: loss: …".
// Keys of mappings are right-aligned; floating-point numbers have a place for their sign, NaN is "   NaN  ", lists are
// their numbers with spaces between. Keeps the order of the keys.
std::string FormatResults(const nlohmann::ordered_json& results, int decimals = 4);

namespace dict_internal {
template <class T>
absl::StatusOr<T> As(const std::string& key, const nlohmann::json& value) {
  try {
    return value.get<T>();
  } catch (const nlohmann::json::exception&) {
    return absl::InvalidArgumentError(absl::StrCat(key, ": found ", value.dump(), ", which is of another type"));
  }
}
}  // namespace dict_internal

template <class T>
absl::StatusOr<T> FlatDict::Get(const std::string& key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return Missing(key);
  return dict_internal::As<T>(key, *found);
}

template <class T>
absl::StatusOr<T> RoundDict::Get(const std::string& path) const {
  absl::StatusOr<nlohmann::json> value = Find(path);
  if (!value.ok()) return value.status();
  return dict_internal::As<T>(path, *value);
}

}  // namespace athanor
