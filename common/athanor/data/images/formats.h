// Whole images of PNG, BMP and WebP into memory of the caller. Internal to the module; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace athanor::internal {

// Every function: false when the image is damaged or of a kind that is not read, and `error` says why. A `Read…`
// function writes rows of 4-byte pixels (red, green, blue, any), `row_bytes` apart, for the size that its
// `Read…Header` function gave. Values are Pillow's convert("RGB"): no gamma and no colour profile is applied, alpha is
// dropped; of 16 bits the upper 8 count.
bool ReadPngHeader(const void* bytes, size_t size, int64_t* height, int64_t* width, std::string* error);
bool ReadPng(const void* bytes, size_t size, uint8_t* rows, size_t row_bytes, std::string* error);

// Windows and OS/2 bitmaps: palettes of 1, 4 and 8 bits, plain or run-length encoded; 16, 24 and 32 bits.
bool ReadBmpHeader(const void* bytes, size_t size, int64_t* height, int64_t* width, std::string* error);
bool ReadBmp(const void* bytes, size_t size, uint8_t* rows, size_t row_bytes, std::string* error);

// Lossy and lossless; animations are not read.
bool ReadWebpHeader(const void* bytes, size_t size, int64_t* height, int64_t* width, std::string* error);
bool ReadWebp(const void* bytes, size_t size, uint8_t* rows, size_t row_bytes, std::string* error);

}  // namespace athanor::internal
