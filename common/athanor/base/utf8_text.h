// Text for protobuf strings and JSON: both refuse bytes that are not UTF-8, and then a whole message is lost.
//
//   proto.set_detail(CutUtf8(detail, 1024));         // instead of detail.substr(0, 1024)
//   proto.set_path(ValidUtf8(path_from_the_disk));
//
// Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace athanor {

// Whether all of `text` is UTF-8: no overlong forms, no surrogates, nothing beyond U+10FFFF.
bool IsUtf8(std::string_view text);

// Index of the first byte that no character begins at or goes on with; npos when all of `text` is UTF-8.
size_t FirstByteNotUtf8(std::string_view text);

// `text` with each byte that belongs to no character replaced by U+FFFD. Equals `text` when that is valid.
std::string ValidUtf8(std::string_view text);

// The first at most `limit` bytes of ValidUtf8(text), cut at a character's border.
std::string CutUtf8(std::string_view text, size_t limit);

// The last at most `limit` bytes of ValidUtf8(text), starting at a character's border.
std::string CutUtf8Front(std::string_view text, size_t limit);

// How StripControlChars() shows what it takes out.
enum class ControlChars {
  kEscaped,       // "\x1b"; also bytes that are not UTF-8
  kQuestionMark,  // "?"; bytes that are not UTF-8 become U+FFFD
};

// `text` without control characters (C0 but newline and tab, DEL, C1): text of a job must not steer a terminal.
std::string StripControlChars(std::string_view text, ControlChars shown = ControlChars::kEscaped);

}  // namespace athanor
