#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "athanor/data/images/formats.h"

namespace athanor::internal {
namespace {

constexpr size_t kFileHeader = 14, kPixelBytes = 4, kMostColours = 65536, kMostPaletted = 256;
constexpr uint32_t kCore = 12, kInfo = 40, kWithMasks = 52, kOs2 = 64;  // sizes of the second header
enum Compression : uint32_t { kPlain = 0, kRle8 = 1, kRle4 = 2, kMasks = 3 };

using Masks = std::array<uint32_t, 4>;  // red, green, blue, alpha
constexpr Masks k15Bits = {0x7c00, 0x3e0, 0x1f, 0}, kBgr = {0xff0000, 0xff00, 0xff, 0};
constexpr uint32_t kHigh = 0xff000000;
// The layouts that Pillow takes. Alpha is dropped.
constexpr Masks k16BitLayouts[] = {{0xf800, 0x7e0, 0x1f, 0}, k15Bits};
constexpr Masks k32BitLayouts[] = {kBgr,
                                   {kHigh, 0xff0000, 0xff00, 0},
                                   {kHigh, 0xff00, 0xff, 0},
                                   {kHigh, 0xff0000, 0xff00, 0xff},
                                   {0xff, 0xff00, 0xff0000, kHigh},
                                   {0xff0000, 0xff00, 0xff, kHigh},
                                   {kHigh, 0xff00, 0xff, 0xff0000}};

// Takes and refuses what Pillow does, and gives its pixels.
struct Bitmap {
  const uint8_t* bytes;
  size_t size;
  std::string* error;

  uint32_t header = 0, compression = kPlain, colours = 0;
  int bits = 0;
  int64_t height = 0, width = 0;
  bool top_down = false;
  Masks masks = {};
  size_t palette_at = 0, pixels_at = 0;
  std::vector<std::array<uint8_t, 3>> palette = {};
  bool grey = false;  // the palette says nothing: indices are the shades, or black and white of one bit each

  bool Fail(const char* why) const {
    *error = why;
    return false;
  }
  uint32_t Number(size_t at, size_t width_bytes) const {
    uint32_t value = 0;
    for (size_t i = width_bytes; i-- > 0;) value = value << 8 | bytes[at + i];
    return value;
  }
  bool runs() const { return compression == kRle8 || compression == kRle4; }
  size_t entry_bytes() const { return header == kCore ? 3 : 4; }

  bool ReadHeader();
  void ReadSize();
  bool ReadMasks();
  void FindPixels();
  bool ReadPalette();
  void PutColour(uint32_t index, uint8_t* to) const {
    const auto shade = static_cast<uint8_t>(grey && colours <= 2 ? (index == 0 ? 0 : 255) : index);
    std::array<uint8_t, 3> colour = {shade, shade, shade};
    if (!grey) colour = index < palette.size() ? palette[index] : std::array<uint8_t, 3>{};
    std::memcpy(to, colour.data(), colour.size());
    to[3] = 255;
  }
  void PutMasked(uint32_t pixel, uint8_t* to) const;
  uint8_t* Row(int64_t y, uint8_t* rows, size_t row_bytes) const {  // `y` counts as the file does
    return rows + static_cast<size_t>(top_down ? y : height - 1 - y) * row_bytes;
  }
  bool ReadRows(uint8_t* rows, size_t row_bytes) const;
  bool ReadIndices(std::vector<uint8_t>* indices) const;
  size_t CopyIndices(size_t at, size_t count, std::vector<uint8_t>* indices) const;
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
  top_down = bytes[kFileHeader + 11] == 0xff;
  height = top_down ? -int64_t{signed_height} : signed_height;
  bits = static_cast<int>(Number(kFileHeader + 14, 2));
  compression = Number(kFileHeader + 16, 4);
  colours = Number(kFileHeader + 32, 4);
}

bool Bitmap::ReadMasks() {
  masks = bits == 16 ? k15Bits : kBgr;
  if (compression != kMasks) return true;
  const size_t at = kFileHeader + kInfo, count = header > kWithMasks ? 4 : 3;
  if (header < kWithMasks) palette_at += 3 * sizeof(uint32_t);
  if (size < at + count * sizeof(uint32_t)) return Fail("the file is cut");
  Masks found = {};
  for (size_t i = 0; i < count; ++i) found[i] = Number(at + 4 * i, 4);
  if (bits == 32 && found == Masks{}) return true;
  if (bits < 32) found[3] = 0;
  const auto known = [&](const auto& layouts) {
    return std::find(std::begin(layouts), std::end(layouts), found) != std::end(layouts);
  };
  const bool taken = bits == 16   ? known(k16BitLayouts)
                     : bits == 24 ? found == kBgr
                                  : bits == 32 && known(k32BitLayouts);
  masks = found;
  return taken || Fail("colour masks of another layout");
}

void Bitmap::FindPixels() {
  const size_t palette_bytes = bits <= 8 ? entry_bytes() * colours : 0;
  pixels_at = Number(10, 4);
  if (pixels_at == 0) {
    pixels_at = palette_at + palette_bytes;
  } else if (pixels_at == kFileHeader + header) {  // some writers forget the palette
    pixels_at += palette_bytes;
  }
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
  ReadSize();
  if (width <= 0 || height <= 0) return Fail("no pixels");
  const bool known = bits == 1 || bits == 4 || bits == 8 || bits == 16 || bits == 24 || bits == 32;
  if (!known) return Fail("pixels of an unknown number of bits");
  if (compression > kMasks || (runs() && bits > 8)) return Fail("a compression that is not read");
  if (colours == 0 && bits <= 8) colours = 1U << bits;
  if (bits <= 8 && colours > kMostColours) return Fail("a palette that is too large");
  if (!ReadMasks()) return false;
  FindPixels();
  return true;
}

bool Bitmap::ReadPalette() {
  if (bits > 8) return true;
  grey = true;
  for (size_t i = 0; i < colours; ++i) {
    const size_t at = palette_at + i * entry_bytes();
    if (at > size || size - at < 3) return Fail("the palette is cut");
    const std::array<uint8_t, 3> colour = {bytes[at + 2], bytes[at + 1], bytes[at]};
    const auto shade = static_cast<uint8_t>(colours == 2 ? i * 255 : i);
    grey = grey && colour == std::array<uint8_t, 3>{shade, shade, shade};
    palette.push_back(colour);
  }
  return grey || colours <= kMostPaletted || Fail("a palette of more than 256 colours");
}

// What the masks cut out, stretched to 0 … 255.
void Bitmap::PutMasked(uint32_t pixel, uint8_t* to) const {
  for (size_t i = 0; i < 3; ++i) {
    const int shift = __builtin_ctz(masks[i]);
    const uint64_t most = masks[i] >> shift;
    to[i] = static_cast<uint8_t>(uint64_t{(pixel & masks[i]) >> shift} * 255 / most);
  }
  to[3] = 255;
}

bool Bitmap::ReadRows(uint8_t* rows, size_t row_bytes) const {
  const size_t stride = (static_cast<size_t>(width) * static_cast<size_t>(bits) + 31) / 32 * 4;
  // Rows of a grey palette have bytes, or bits where it has two colours, whatever the header says.
  const int packed = grey ? (colours <= 2 ? 1 : 8) : bits;
  const size_t used = (static_cast<size_t>(width) * static_cast<size_t>(packed) + 7) / 8;
  if (used > stride) return Fail("shades of grey in pixels of fewer bits");
  // What fills up the last row may be missing.
  if (pixels_at > size || stride * static_cast<size_t>(height - 1) + used > size - pixels_at)
    return Fail("the file is cut");
  const auto pixel_bytes = static_cast<size_t>(bits) / 8;
  const int per_byte = packed < 8 ? 8 / packed : 1;
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* from = bytes + pixels_at + static_cast<size_t>(y) * stride;
    uint8_t* to = Row(y, rows, row_bytes);
    for (int64_t x = 0; x < width; ++x, to += kPixelBytes) {
      if (bits <= 8) {
        const int shift = 8 - packed * (static_cast<int>(x % per_byte) + 1);
        PutColour(from[x / per_byte] >> shift & ((1U << packed) - 1), to);
        continue;
      }
      uint32_t pixel = 0;
      std::memcpy(&pixel, from, pixel_bytes);
      PutMasked(pixel, to);
      from += pixel_bytes;
    }
  }
  return true;
}

// `count` indices as they are; returns their bytes in the file, fewer where it is cut.
size_t Bitmap::CopyIndices(size_t at, size_t count, std::vector<uint8_t>* indices) const {
  const bool halves = compression == kRle4;
  const size_t wanted = halves ? (count + 1) / 2 : count, there = std::min(wanted, size - at);
  for (size_t i = 0; i < there; ++i) {
    if (!halves) indices->push_back(bytes[at + i]);
    if (halves) indices->push_back(bytes[at + i] >> 4);
    if (halves && 2 * i + 1 < count) indices->push_back(bytes[at + i] & 0xf);
  }
  return there;
}

// Pairs of a length and a value; a length of 0 begins an escape. One row after the other: what an escape leaves out has
// the index 0.
bool Bitmap::ReadIndices(std::vector<uint8_t>* indices) const {
  const auto across = static_cast<size_t>(width), all = across * static_cast<size_t>(height);
  size_t at = pixels_at, x = 0;
  while (indices->size() < all && at < size && size - at >= 2) {
    const uint32_t length = bytes[at], code = bytes[at + 1];
    at += 2;
    if (length > 0) {
      const size_t count = x + length > across ? across - std::min(x, across) : length;
      for (size_t i = 0; i < count; ++i)
        indices->push_back(static_cast<uint8_t>(compression == kRle8 ? code : i % 2 == 0 ? code >> 4 : code & 0xf));
      x += count;
    } else if (code == 0) {  // the row's end
      indices->resize((indices->size() + across - 1) / across * across);
      x = 0;
    } else if (code == 1) {  // the picture's end
      break;
    } else if (code == 2) {  // a way to the right and up
      if (size - at < 2) break;
      const size_t skipped = bytes[at] + bytes[at + 1] * across;
      indices->resize(indices->size() + std::min(skipped, all - indices->size()));
      x = indices->size() % across;
      at += 2;
    } else {
      const size_t count = std::min<size_t>(all - indices->size(), code);
      at += CopyIndices(at, count, indices);
      x += code;
      at += at % 2;
    }
  }
  return indices->size() >= all || Fail("the file is cut");
}

bool Bitmap::ReadRuns(uint8_t* rows, size_t row_bytes) const {
  std::vector<uint8_t> indices;
  if (!ReadIndices(&indices)) return false;
  const uint8_t* index = indices.data();
  for (int64_t y = 0; y < height; ++y) {
    uint8_t* to = Row(y, rows, row_bytes);
    for (int64_t x = 0; x < width; ++x, to += kPixelBytes) PutColour(*index++, to);
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
  return bitmap.runs() ? bitmap.ReadRuns(rows, row_bytes) : bitmap.ReadRows(rows, row_bytes);
}

}  // namespace athanor::internal
