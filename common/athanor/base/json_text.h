// JSON that others wrote. The parser takes any depth, but copying, comparing and printing a value recurse: a hundred
// thousand brackets would end the process wherever that happens first.
//
//   const nlohmann::json value = ParseJsonText(line);
//   if (value.is_discarded()) return absl::DataLossError(absl::StrCat(path, ": not JSON"));
#pragma once

#include <string_view>

#include <nlohmann/json.hpp>
#include "athanor/base/utf8_text.h"  // what strings of JSON must be: printing any other throws

namespace athanor {

inline constexpr int kMaxJsonDepth = 200;

// Whether lists and mappings lie deeper in each other than kMaxJsonDepth. Of text that is no JSON the answer means
// nothing.
bool JsonNestsTooDeep(std::string_view text);

// Discarded when it is no JSON, or nests too deep. Pure, thread-safe.
nlohmann::json ParseJsonText(std::string_view text);

}  // namespace athanor
