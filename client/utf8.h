// Where a text stops being UTF-8. Protocol Buffers and JSON take nothing else.
#pragma once

#include <cstddef>
#include <string_view>

#include "athanor/base/json_text.h"

namespace athanor {

// Index of the first byte that no character begins at or goes on with; npos when all of `text` is UTF-8.
inline size_t FirstByteNotUtf8(std::string_view text) {
  constexpr size_t kLongest = 4;
  for (size_t at = 0; at < text.size();) {
    size_t length = 1;
    while (length <= kLongest && !IsUtf8(text.substr(at, length))) ++length;
    if (length > kLongest) return at;
    at += length;
  }
  return std::string_view::npos;
}

}  // namespace athanor
