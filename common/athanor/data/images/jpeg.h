// A window of a JPEG file by libjpeg-turbo, into memory of the caller. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace athanor::internal {

struct JpegHeader {
  int64_t height = 0, width = 0;
  bool only_whole = false;  // rare samplings of colour: windows of them are not trusted
};
// False: `error` is what the decoder said.
bool ReadJpegHeader(const void* bytes, size_t size, JpegHeader* header, std::string* error);

// Of the image at 1 / `reduction` of its size, rounded up.
struct JpegWindow {
  int reduction = 1;
  int64_t top = 0, left = 0, height = 0, width = 0;
};
// The smallest window that can be decoded and holds this one, with its outer pixels as they are in the whole image.
JpegWindow DecodableWindow(const JpegHeader& header, const JpegWindow& wanted);

// Decodes a decodable window to rows of 4-byte pixels (red, green, blue, any), `row_bytes` apart.
bool ReadJpegWindow(const void* bytes, size_t size, const JpegWindow& window, uint8_t* rows, size_t row_bytes,
                    std::string* error);

}  // namespace athanor::internal
