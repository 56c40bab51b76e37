#include <array>
#include <cstring>
#include <vector>

#include "athanor/data/images/formats.h"

namespace athanor::internal {
namespace {

constexpr size_t kFileHeader = 14, kPixelBytes = 4;
constexpr uint32_t kCore = 12, kInfo = 40, kOs2 = 64, kWithMasks = 52;  // sizes of the second header
enum Compression : uint32_t { kPlain = 0, kRle8 = 1, kRle4 = 2, kMasks = 3 };

struct Bitmap {
  const uint8_t* bytes;
  size_t size;
  std::string* error;

  uint32_t header = 0, compression = kPlain, colours = 0;
  int bits = 0;
  int64_t height = 0, width = 0;
  bool top_down = false;
  std::array<uint32_t, 3> masks = {};  // red, green, blue
  size_t palette_at = 0, pixels_at = 0;
  std::vector<std::array<uint8_t, 3>> palette = {};

  bool Fail(const char* why) const {
    *error = why;
    return false;
  }
  uint32_t Number(size_t at, size_t width_bytes) const {
    uint32_t value = 0;
    for (size_t i = width_bytes; i-- > 0;) value = value << 8 | bytes[at + i];
    return value;
  }

  bool ReadHeader();
  void ReadSize();
  bool ReadMasks();
  bool ReadPalette();
  void PutColour(uint32_t index, uint8_t* to) const {
    const std::array<uint8_t, 3> colour = index < palette.size() ? palette[index] : std::array<uint8_t, 3>{};
    std::memcpy(to, colour.data(), colour.size());
  }
  void PutMasked(uint32_t pixel, uint8_t* to) const;
  uint8_t* Row(int64_t y, uint8_t* rows, size_t row_bytes) const {  // `y` counts as the file does
    return rows + static_cast<size_t>(top_down ? y : height - 1 - y) * row_bytes;
  }
  bool ReadRows(uint8_t* rows, size_t row_bytes) const;
  bool ReadRuns(uint8_t* rows, size_t row_bytes) const;
};

void Bitmap::ReadSize() {
  if (header == kCore) {
    width = Number(kFileHeader + 4, 2);
    height = Number(kFileHeader + 6, 2);
    bits = static_cast<int>(Number(kFileHeader + 10, 2));
    return;
  }
  const auto signed_height = static_cast<int32_t>(Number(kFileHeader + 8, 4));
  width = static_cast<int32_t>(Number(kFileHeader + 4, 4));
  top_down = signed_height < 0;
  height = top_down ? -int64_t{signed_height} : signed_height;
  bits = static_cast<int>(Number(kFileHeader + 14, 2));
  compression = Number(kFileHeader + 16, 4);
  colours = Number(kFileHeader + 32, 4);
}

bool Bitmap::ReadMasks() {
  if (bits == 16) masks = {0x7c00, 0x3e0, 0x1f};
  if (bits >= 24) masks = {0xff0000, 0xff00, 0xff};
  if (compression != kMasks) return true;
  if (bits != 16 && bits != 32) return Fail("colour masks with other pixels than of 16 or 32 bits");
  const size_t at = kFileHeader + kInfo;
  if (header < kWithMasks) palette_at += sizeof masks;
  if (size < at + sizeof masks) return Fail("the file is cut");
  std::array<uint32_t, 3> found = {};
  for (size_t i = 0; i < found.size(); ++i) found[i] = Number(at + 4 * i, 4);
  if (found != std::array<uint32_t, 3>{}) masks = found;
  for (const uint32_t mask : masks) {
    if (mask == 0) return Fail("a colour without a mask");
  }
  return true;
}

bool Bitmap::ReadHeader() {
  if (size < kFileHeader + kCore) return Fail("the file is cut");
  header = Number(kFileHeader, 4);
  if (header != kCore && header != kInfo && header != kWithMasks && header != 56 && header != kOs2 && header != 108 &&
      header != 124) {
    return Fail("a header of an unknown size");
  }
  if (size < kFileHeader + header) return Fail("the file is cut");
  palette_at = kFileHeader + header;
  pixels_at = Number(10, 4);
  ReadSize();
  if (width <= 0 || height <= 0) return Fail("no pixels");
  const bool known = bits == 1 || bits == 4 || bits == 8 || bits == 16 || bits == 24 || bits == 32;
  if (!known) return Fail("pixels of an unknown number of bits");
  const bool runs = (compression == kRle8 && bits == 8) || (compression == kRle4 && bits == 4);
  if (compression != kPlain && !runs && compression != kMasks) return Fail("a compression that is not read");
  return ReadMasks();
}

bool Bitmap::ReadPalette() {
  if (bits > 8) return true;
  const size_t most = size_t{1} << bits, entry = header == kCore ? 3 : 4;
  const size_t count = colours == 0 || colours > most ? most : colours;
  if (palette_at > size || count * entry > size - palette_at) return Fail("the palette is cut");
  for (size_t i = 0; i < count; ++i) {
    const uint8_t* colour = bytes + palette_at + i * entry;
    palette.push_back({colour[2], colour[1], colour[0]});
  }
  return true;
}

// What the masks cut out, stretched to 0 … 255.
void Bitmap::PutMasked(uint32_t pixel, uint8_t* to) const {
  for (size_t i = 0; i < masks.size(); ++i) {
    const int shift = __builtin_ctz(masks[i]);
    const uint64_t most = masks[i] >> shift;
    to[i] = static_cast<uint8_t>(uint64_t{(pixel & masks[i]) >> shift} * 255 / most);
  }
}

bool Bitmap::ReadRows(uint8_t* rows, size_t row_bytes) const {
  const size_t stride = (static_cast<size_t>(width) * static_cast<size_t>(bits) + 31) / 32 * 4;
  if (pixels_at > size || stride * static_cast<size_t>(height) > size - pixels_at) return Fail("the file is cut");
  const auto pixel_bytes = static_cast<size_t>(bits) / 8;
  const int per_byte = bits < 8 ? 8 / bits : 1;
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* from = bytes + pixels_at + static_cast<size_t>(y) * stride;
    uint8_t* to = Row(y, rows, row_bytes);
    for (int64_t x = 0; x < width; ++x, to += kPixelBytes) {
      if (bits <= 8) {
        const int shift = 8 - bits * (static_cast<int>(x % per_byte) + 1);
        PutColour(from[x / per_byte] >> shift & ((1U << bits) - 1), to);
      } else if (compression == kPlain && bits >= 24) {
        to[0] = from[2];
        to[1] = from[1];
        to[2] = from[0];
        from += pixel_bytes;
      } else {
        uint32_t pixel = 0;
        std::memcpy(&pixel, from, pixel_bytes);
        PutMasked(pixel, to);
        from += pixel_bytes;
      }
      to[3] = 255;
    }
  }
  return true;
}

// Pairs of a length and a value; a length of 0 begins an escape.
bool Bitmap::ReadRuns(uint8_t* rows, size_t row_bytes) const {
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) PutColour(0, rows + static_cast<size_t>(y) * row_bytes + x * kPixelBytes);
  }
  int64_t x = 0, y = 0;
  const auto put = [&](uint32_t index) {
    if (x < width && y < height) PutColour(index, Row(y, rows, row_bytes) + x * kPixelBytes);
    ++x;
  };
  const auto value = [&](const uint8_t* from, uint32_t i) -> uint32_t {
    return bits == 8 ? from[i] : i % 2 == 0 ? from[i / 2] >> 4 : from[i / 2] & 0xf;
  };
  size_t at = pixels_at;
  while (y < height) {
    if (at > size || size - at < 2) {  // the mark of the end may be missing: all pixels are there
      return (y == height - 1 && x >= width) || Fail("the file is cut");
    }
    const uint32_t count = bytes[at], code = bytes[at + 1];
    at += 2;
    if (count > 0) {
      for (uint32_t i = 0; i < count; ++i) put(bits == 8 ? code : i % 2 == 0 ? code >> 4 : code & 0xf);
    } else if (code == 0) {  // the row's end
      x = 0;
      ++y;
    } else if (code == 1) {  // the picture's end
      return true;
    } else if (code == 2) {  // a way to the right and up
      if (size - at < 2) return Fail("the file is cut");
      x += bytes[at];
      y += bytes[at + 1];
      at += 2;
    } else {  // `code` values as they are, filled up to an even number of bytes
      const size_t used = bits == 8 ? code : (code + 1) / 2;
      if (size - at < used + used % 2) return Fail("the file is cut");
      for (uint32_t i = 0; i < code; ++i) put(value(bytes + at, i));
      at += used + used % 2;
    }
  }
  return true;
}

}  // namespace

bool ReadBmpHeader(const void* bytes, size_t size, int64_t* height, int64_t* width, std::string* error) {
  Bitmap bitmap = {static_cast<const uint8_t*>(bytes), size, error};
  if (!bitmap.ReadHeader()) return false;
  *height = bitmap.height;
  *width = bitmap.width;
  return true;
}

bool ReadBmp(const void* bytes, size_t size, uint8_t* rows, size_t row_bytes, std::string* error) {
  Bitmap bitmap = {static_cast<const uint8_t*>(bytes), size, error};
  if (!bitmap.ReadHeader() || !bitmap.ReadPalette()) return false;
  const bool runs = bitmap.compression == kRle8 || bitmap.compression == kRle4;
  return runs ? bitmap.ReadRuns(rows, row_bytes) : bitmap.ReadRows(rows, row_bytes);
}

}  // namespace athanor::internal
