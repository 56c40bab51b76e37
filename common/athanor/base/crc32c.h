// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78), as in RFC 3720. Uses the processor's instruction where it has
// one.
//
//   uint32_t crc = Crc32c(0, "123456789", 9);   // 0xe3069283
//   crc = Crc32c(crc, more, size);              // continues
#pragma once

#include <cstddef>
#include <cstdint>

namespace athanor {

uint32_t Crc32c(uint32_t crc, const void* data, size_t size);

}  // namespace athanor
