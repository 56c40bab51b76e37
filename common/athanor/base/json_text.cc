#include "athanor/base/json_text.h"

#include <charconv>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace athanor {

bool JsonNestsTooDeep(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxJsonDepth) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

nlohmann::json ParseJsonText(std::string_view text) {
  if (JsonNestsTooDeep(text)) return nlohmann::json(nlohmann::json::value_t::discarded);
  return nlohmann::json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
}

namespace {

// Calls `found` with every run of characters outside of strings that numbers and words are made of, until it says true.
template <class Found>
bool AnyWord(std::string_view text, const Found& found) {
  const auto of_word = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '+' || c == '-';
  };
  for (size_t at = 0; at < text.size();) {
    if (text[at] == '"') {
      for (++at; at < text.size() && text[at] != '"'; ++at) {
        if (text[at] == '\\') ++at;
      }
      ++at;
      continue;
    }
    size_t end = at;
    while (end < text.size() && of_word(text[end])) ++end;
    if (end > at && found(text.substr(at, end - at))) return true;
    at = end + (end == at ? 1 : 0);
  }
  return false;
}

}  // namespace

std::string JsonProblem(std::string_view text) {
  const std::string_view mark = text.substr(0, 2);
  if (mark == "\xff\xfe" || mark == "\xfe\xff" || text.find('\0') != std::string_view::npos)
    return "no JSON: UTF-16 or bytes that are no text; allowed: UTF-8";
  if (JsonNestsTooDeep(text)) return absl::StrCat("nested deeper than ", kMaxJsonDepth, " levels, or no JSON");
  std::string word;
  const bool python = AnyWord(text, [&](std::string_view one) {
    word = one;
    return one == "NaN" || one == "Infinity" || one == "-Infinity";
  });
  if (python)
    return absl::StrCat("not JSON: ", word,
                        ", which Python's json.dumps writes; allowed: numbers, or null where one is missing");
  try {
    (void)nlohmann::json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::parse_error& error) {
    return absl::StrCat("not JSON from byte ", error.byte, " on");
  } catch (const nlohmann::json::exception& error) {
    return absl::StrCat("a number is too large: ", error.what());
  }
  return "not JSON";
}

bool HoldsHugeInteger(std::string_view json) {
  return AnyWord(json, [](std::string_view word) {
    if (word.find_first_not_of("-0123456789") != std::string_view::npos) return false;
    int64_t small = 0;
    return std::from_chars(word.data(), word.data() + word.size(), small).ec == std::errc::result_out_of_range;
  });
}

}  // namespace athanor
