// FNV-1a, 64 bits: an id to tell texts apart, not a proof of anything.
#pragma once

#include <cstdint>
#include <string_view>

namespace athanor {

constexpr uint64_t Fingerprint(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return hash;
}

}  // namespace athanor
