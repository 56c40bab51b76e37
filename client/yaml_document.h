// YAML text as JSON, with the place of every value. Defensive: bounded size, depth and number of nodes, no duplicate
// keys, one document.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace athanor {

struct Place {
  int line = 0, column = 0;  // from 1; 0 = unknown
};

struct YamlDocument {
  nlohmann::json value;
  std::map<std::string, Place> places;  // "runner.optim.lr"; list elements by number
  std::vector<std::string> problems;    // "line:column: path: text", of the text itself
};

// INVALID_ARGUMENT "line:column: …" where the text is no YAML at all.
absl::StatusOr<YamlDocument> ParseYaml(const std::string& text);

}  // namespace athanor
