// YAML text as JSON, with the place of every value. Defensive: UTF-8 only, bounded size, depth and number of nodes, no
// duplicate keys, one document. Merge keys ("<<: *base", or a list of them) are resolved: keys of the map itself win,
// then those of the earlier map.
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

struct YamlProblem {
  Place place;
  std::string path, text;
  bool as_number = false;  // wrong only where a number is wanted; as text the scalar is good
};

struct YamlDocument {
  nlohmann::json value;
  std::map<std::string, Place> places;       // "runner.optim.lr"; list elements by number
  std::map<std::string, std::string> texts;  // scalars as they are written: "env.VERSION" -> "3.10"; null has none
  std::vector<YamlProblem> problems;         // of the text itself
};

// INVALID_ARGUMENT "line:column: …" where the text is no YAML at all.
absl::StatusOr<YamlDocument> ParseYaml(const std::string& text);

// `message` about the value at `path`, with a number or boolean as it is written there: "found 01234 (integer); …"
// where the reader had "found 1234 (integer); …".
std::string AsWritten(const YamlDocument& document, const std::string& path, const std::string& message);

// The list or map that `text` is in YAML's short style, "{from_file: key}"; null where it is JSON already, or neither.
nlohmann::json ParseFlow(const std::string& text);

}  // namespace athanor
