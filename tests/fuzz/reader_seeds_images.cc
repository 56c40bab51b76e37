#include <csetjmp>
#include <cstdio>
#include <cstdlib>

#include <jpeglib.h>
#include <png.h>
#include <webp/encode.h>

#include "athanor/data/images/codec.h"
#include "tests/fuzz/reader_seeds.h"
#include "tests/fuzz/replay.h"
#include "tests/fuzz/target.h"

namespace athanor::fuzz {
namespace {

std::vector<uint8_t> Pixels(size_t count) {
  std::vector<uint8_t> pixels(count);
  for (size_t i = 0; i < count; ++i) pixels[i] = static_cast<uint8_t>(i * i / 7 + 40 * (i / 30));
  return pixels;
}

void AppendPng(png_structp png, png_bytep data, size_t size) {
  static_cast<std::string*>(png_get_io_ptr(png))->append(reinterpret_cast<const char*>(data), size);
}

std::string PngOf(unsigned height, unsigned width, int depth, int colour, bool interlaced) {
  std::string bytes;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(png, &bytes, &AppendPng, nullptr);
  png_set_IHDR(png, info, width, height, depth, colour, interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  std::vector<png_color> palette(16);
  for (size_t i = 0; i < palette.size(); ++i) palette[i] = {static_cast<png_byte>(16 * i), 7, 200};
  if (colour == PNG_COLOR_TYPE_PALETTE) png_set_PLTE(png, info, palette.data(), static_cast<int>(palette.size()));
  png_set_gAMA_fixed(png, info, 45455);
  png_write_info(png, info);
  std::vector<uint8_t> pixels = Pixels(size_t{8} * width * height);
  std::vector<png_bytep> rows;
  for (unsigned y = 0; y < height; ++y) rows.push_back(pixels.data() + y * width * 8);
  png_write_image(png, rows.data());
  png_write_end(png, nullptr);
  png_destroy_write_struct(&png, &info);
  return bytes;
}

}  // namespace

std::string JpegOf(int height, int width, const JpegKind& kind) {
  const int channels = kind.grey ? 1 : kind.inks ? 4 : 3;
  std::vector<uint8_t> pixels = Pixels(static_cast<size_t>(height * width * channels));
  jpeg_compress_struct info = {};
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &bytes, &size);
  info.image_height = static_cast<JDIMENSION>(height);
  info.image_width = static_cast<JDIMENSION>(width);
  info.input_components = channels;
  info.in_color_space = kind.grey ? JCS_GRAYSCALE : kind.inks ? JCS_CMYK : JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, kind.quality, TRUE);
  if (kind.progressive) jpeg_simple_progression(&info);
  std::vector<jpeg_scan_info> scans = {{1, {0}, 0, 0, 0, 0}};
  for (int i = 1; i < 64; ++i) {
    for (const int bit : {1, 0}) scans.push_back({1, {0}, i, i, bit == 1 ? 0 : 1, bit});
  }
  if (kind.scan_per_number) {
    info.scan_info = scans.data();
    info.num_scans = static_cast<int>(scans.size());
  }
  info.comp_info[0].h_samp_factor = kind.across;
  info.comp_info[0].v_samp_factor = kind.down;
  info.restart_in_rows = kind.progressive ? 0 : 2;
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < info.image_height) {
    JSAMPROW row = pixels.data() + info.next_scanline * static_cast<unsigned>(width * channels);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  std::string result(reinterpret_cast<const char*>(bytes), size);
  jpeg_destroy_compress(&info);
  std::free(bytes);
  return result;
}

namespace {

std::string WebpOf(int height, int width, bool lossless) {
  const std::vector<uint8_t> pixels = Pixels(static_cast<size_t>(height * width * 4));
  uint8_t* bytes = nullptr;
  const size_t size = lossless ? WebPEncodeLosslessRGBA(pixels.data(), width, height, width * 4, &bytes)
                               : WebPEncodeRGBA(pixels.data(), width, height, width * 4, 60, &bytes);
  std::string result(reinterpret_cast<const char*>(bytes), size);
  WebPFree(bytes);
  return result;
}

struct BmpKind {
  uint32_t bits, compression = 0, header = 40;
  int32_t height = 6, width = 7;
};

// Masks and a palette stand behind the header, whether they are looked at or not.
std::string BmpOf(const BmpKind& kind, const std::string& rows) {
  std::string bytes(kind.header + 14 + 12 + 4 * (kind.bits > 8 ? 0 : size_t{1} << kind.bits), '\7');
  bytes.replace(0, 2, "BM");
  PutNumber(bytes, 10, 4, bytes.size());
  PutNumber(bytes, 14, 4, kind.header);
  PutNumber(bytes, 18, 4, static_cast<uint32_t>(kind.width));
  PutNumber(bytes, 22, 4, static_cast<uint32_t>(kind.height));
  PutNumber(bytes, 26, 2, 1);
  PutNumber(bytes, 28, 2, kind.bits);
  PutNumber(bytes, 30, 4, kind.compression);
  PutNumber(bytes, 46, 4, 0);
  for (size_t i = 0; i < 3; ++i) PutNumber(bytes, 54 + 4 * i, 4, uint64_t{0x7c00} >> (5 * i));
  return bytes + rows;
}

}  // namespace

std::vector<std::string> ImageSeedsOf(const std::string& target) {
  if (target == "jpeg") {
    return {JpegOf(40, 30, {.across = 2, .down = 2}),
            JpegOf(33, 65, {.progressive = true, .across = 2}),
            JpegOf(24, 24, {.quality = 90, .grey = true}),
            JpegOf(50, 17, {.quality = 20, .across = 4}),
            JpegOf(30, 40, {.quality = 20, .grey = true, .progressive = true}),
            JpegOf(64, 48, {.quality = 30, .down = 2}),
            JpegOf(40, 24, {.inks = true}),
            JpegOf(24, 24, {.grey = true}).insert(JpegOf(24, 24, {.grey = true}).size() - 2, 40, '\0')};
  }
  if (target == "webp") return {WebpOf(20, 31, false), WebpOf(17, 12, true)};
  if (target == "bmp") {
    const std::string rows(400, '\x2d');
    return {BmpOf({.bits = 24}, rows),
            BmpOf({.bits = 8, .height = -6}, rows),
            BmpOf({.bits = 4}, rows),
            BmpOf({.bits = 1}, rows),
            BmpOf({.bits = 16, .compression = 3}, rows),
            BmpOf({.bits = 32, .header = 124}, rows),
            BmpOf({.bits = 8, .compression = 1}, std::string("\4\1\0\0\0\5abcde\0\0\2\0\1\1\0\1", 18)),
            BmpOf({.bits = 4, .compression = 2}, std::string("\5\x12\0\0\0\6\x12\x34\x56\0\0\0\0\1", 14))};
  }
  return {PngOf(9, 12, 8, PNG_COLOR_TYPE_RGB, false),    PngOf(11, 8, 8, PNG_COLOR_TYPE_RGB_ALPHA, true),
          PngOf(9, 12, 4, PNG_COLOR_TYPE_PALETTE, true), PngOf(8, 30, 16, PNG_COLOR_TYPE_GRAY, false),
          PngOf(16, 9, 1, PNG_COLOR_TYPE_GRAY, false),   PngOf(5, 7, 16, PNG_COLOR_TYPE_RGB, true)};
}

}  // namespace athanor::fuzz
