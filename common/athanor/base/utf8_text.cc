#include "athanor/base/utf8_text.h"

#include "absl/strings/str_cat.h"

namespace athanor {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

bool IsContinuation(char c) {
  return (static_cast<unsigned char>(c) & 0xc0) == 0x80;
}

// Bytes of the character that begins at `at`; 0 when none does.
size_t CharacterAt(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at);
  if (lead < 0x80) return 1;
  const size_t more = lead >= 0xc2 && lead < 0xe0   ? 1
                      : lead >= 0xe0 && lead < 0xf0 ? 2
                      : lead >= 0xf0 && lead < 0xf5 ? 3
                                                    : 0;
  if (more == 0 || text.size() - at <= more) return 0;
  // Not longer than needed, no half of a pair, not beyond the last character.
  const unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  if (byte(at + 1) < low || byte(at + 1) > high) return 0;
  for (size_t i = 2; i <= more; ++i) {
    if (!IsContinuation(text[at + i])) return 0;
  }
  return more + 1;
}

}  // namespace

size_t FirstByteNotUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t length = CharacterAt(text, at);
    if (length == 0) return at;
    at += length;
  }
  return std::string_view::npos;
}

bool IsUtf8(std::string_view text) {
  return FirstByteNotUtf8(text) == std::string_view::npos;
}

std::string ValidUtf8(std::string_view text) {
  if (IsUtf8(text)) return std::string(text);
  std::string valid;
  valid.reserve(text.size() + kReplacement.size());
  for (size_t at = 0; at < text.size();) {
    const size_t length = CharacterAt(text, at);
    valid += length == 0 ? kReplacement : text.substr(at, length);
    at += length == 0 ? 1 : length;
  }
  return valid;
}

std::string CutUtf8(std::string_view text, size_t limit) {
  // A character has four bytes at most: what lies further behind cannot matter.
  std::string valid = ValidUtf8(text.size() > limit + 4 ? text.substr(0, limit + 4) : text);
  if (valid.size() <= limit) return valid;
  size_t end = limit;
  while (end > 0 && IsContinuation(valid[end])) --end;
  valid.resize(end);
  return valid;
}

std::string CutUtf8Front(std::string_view text, size_t limit) {
  if (text.size() > limit + 4) text.remove_prefix(text.size() - limit - 4);
  const std::string valid = ValidUtf8(text);
  if (valid.size() <= limit) return valid;
  size_t begin = valid.size() - limit;
  while (begin < valid.size() && IsContinuation(valid[begin])) ++begin;
  return valid.substr(begin);
}

std::string StripControlChars(std::string_view text, ControlChars shown) {
  std::string clean;
  clean.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t length = CharacterAt(text, at);
    const std::string_view character = text.substr(at, length == 0 ? 1 : length);
    at += character.size();
    const auto last = static_cast<unsigned char>(character.back());
    const bool first_set = length == 1 && ((last < 0x20 && last != '\n' && last != '\t') || last == 0x7f);
    const bool second_set = length == 2 && character.front() == '\xc2' && last < 0xa0;  // U+0080 to U+009F
    if (length > 0 && !first_set && !second_set) {
      clean += character;
    } else if (shown == ControlChars::kEscaped) {
      absl::StrAppend(&clean, "\\x", absl::Hex(last, absl::kZeroPad2));
    } else {
      clean += length == 0 ? kReplacement : "?";
    }
  }
  return clean;
}

}  // namespace athanor
