#include "athanor/base/json_text.h"

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

bool IsUtf8(std::string_view text) {
  const auto byte = [&](size_t at) { return static_cast<unsigned char>(text[at]); };
  for (size_t at = 0; at < text.size();) {
    const unsigned char lead = byte(at++);
    if (lead < 0x80) continue;
    const size_t more = lead >= 0xc2 && lead < 0xe0   ? 1
                        : lead >= 0xe0 && lead < 0xf0 ? 2
                        : lead >= 0xf0 && lead < 0xf5 ? 3
                                                      : 0;
    if (more == 0 || text.size() - at < more) return false;
    // Not longer than needed, no half of a pair, not beyond the last character.
    const unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (byte(at) < low || byte(at) > high) return false;
    for (size_t i = 1; i < more; ++i) {
      if ((byte(at + i) & 0xc0) != 0x80) return false;
    }
    at += more;
  }
  return true;
}

nlohmann::json ParseJsonText(std::string_view text) {
  if (JsonNestsTooDeep(text)) return nlohmann::json(nlohmann::json::value_t::discarded);
  return nlohmann::json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
}

}  // namespace athanor
