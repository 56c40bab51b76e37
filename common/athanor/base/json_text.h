// JSON that others wrote. The parser takes any depth, but copying, comparing and printing a value recurse: a hundred
// thousand brackets would end the process wherever that happens first.
//
//   const nlohmann::json value = ParseJsonText(line);
//   if (value.is_discarded()) return absl::DataLossError(absl::StrCat(path, ": not JSON"));
#pragma once

#include <string>
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

// What is wrong with text that ParseJsonText() discards, for messages: "no JSON from byte 12 on", with a hint where a
// program writes what JSON has not (NaN of Python's json.dumps, UTF-16). Pure, thread-safe.
std::string JsonProblem(std::string_view text);

// Whether a number stands in the text that is an integer and fits no 64 bits: parsers give the nearest double for it.
// Pure, thread-safe.
bool HoldsHugeInteger(std::string_view json);

}  // namespace athanor
