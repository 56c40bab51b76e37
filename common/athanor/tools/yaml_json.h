// YAML text to JSON and back. Tags are ignored, anchors are followed; plain scalars become null, true, false, numbers
// where they look like it, quoted ones stay text. Mapping keys are text.
#pragma once

#include <string>

#include <nlohmann/json.hpp>
#include "absl/status/statusor.h"

namespace athanor {

// INVALID_ARGUMENT with line and column; also for text that is not UTF-8, and for anchors that make a small document a
// large one.
absl::StatusOr<nlohmann::json> ParseYaml(const std::string& text);
std::string FormatYaml(const nlohmann::json& value);

}  // namespace athanor
