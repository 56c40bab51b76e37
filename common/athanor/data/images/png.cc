#include <csetjmp>
#include <cstdio>
#include <cstring>

#include <png.h>

#include "athanor/data/images/formats.h"

namespace athanor::internal {
namespace {

constexpr char kEnd[] = "\0\0\0\0IEND\xae\x42\x60\x82";
constexpr size_t kEndBytes = sizeof kEnd - 1;

struct PngJob {
  const uint8_t* at;
  size_t left;
  size_t end_left;  // of the end mark behind a file that lacks it: all its pixels are there
  uint8_t* rows;
  size_t row_bytes;
  int64_t height, width;
  char message[160];
};

PngJob JobOf(const void* bytes, size_t size, uint8_t* rows, size_t row_bytes) {
  return {static_cast<const uint8_t*>(bytes), size, kEndBytes, rows, row_bytes, 0, 0, ""};
}

void TakeBytes(png_structp png, png_bytep to, size_t count) {
  auto* job = static_cast<PngJob*>(png_get_io_ptr(png));
  if (job->left == 0 && count <= job->end_left) {
    std::memcpy(to, kEnd + kEndBytes - job->end_left, count);
    job->end_left -= count;
    return;
  }
  if (count > job->left) png_error(png, "the file is cut");
  std::memcpy(to, job->at, count);
  job->at += count;
  job->left -= count;
}

// The decoder leaves through a jump; no object with a destructor may live on its way.
void Failed(png_structp png, png_const_charp message) {
  auto* job = static_cast<PngJob*>(png_get_error_ptr(png));
  std::snprintf(job->message, sizeof job->message, "%s", message);
  png_longjmp(png, 1);
}

void Warned(png_structp, png_const_charp) {}

void ReadInfo(png_structp png, png_infop info, PngJob* job) {
  png_set_read_fn(png, job, &TakeBytes);
  // Gamma, profiles and texts do not count, and may be large.
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_read_info(png, info);
  job->height = png_get_image_height(png, info);
  job->width = png_get_image_width(png, info);
}

void ReadPixels(png_structp png, png_infop info, PngJob* job) {
  ReadInfo(png, info, job);
  const int colour = png_get_color_type(png, info);
  if (colour == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if ((colour & PNG_COLOR_MASK_COLOR) == 0) {
    png_set_expand_gray_1_2_4_to_8(png);
    png_set_gray_to_rgb(png);
  }
  png_set_strip_16(png);
  png_set_filler(png, 0xff, PNG_FILLER_AFTER);
  const int passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  constexpr size_t kPixelBytes = 4;
  if (png_get_rowbytes(png, info) != static_cast<size_t>(job->width) * kPixelBytes)
    png_error(png, "its pixels have no size");
  for (int pass = 0; pass < passes; ++pass) {
    for (int64_t y = 0; y < job->height; ++y)
      png_read_row(png, job->rows + static_cast<size_t>(y) * job->row_bytes, nullptr);
  }
  png_read_end(png, nullptr);
}

// `body` with the jump caught.
bool RunPng(void (*body)(png_structp, png_infop, PngJob*), PngJob* job, std::string* error) {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, job, &Failed, &Warned);
  png_infop info = png == nullptr ? nullptr : png_create_info_struct(png);
  if (info == nullptr) {
    png_destroy_read_struct(&png, nullptr, nullptr);
    *error = "no memory for the decoder";
    return false;
  }
  if (setjmp(png_jmpbuf(png)) != 0) {
    png_destroy_read_struct(&png, &info, nullptr);
    *error = job->message;
    return false;
  }
  body(png, info, job);
  png_destroy_read_struct(&png, &info, nullptr);
  return true;
}

}  // namespace

bool ReadPngHeader(const void* bytes, size_t size, int64_t* height, int64_t* width, std::string* error) {
  PngJob job = JobOf(bytes, size, nullptr, 0);
  if (!RunPng(&ReadInfo, &job, error)) return false;
  *height = job.height;
  *width = job.width;
  return true;
}

bool ReadPng(const void* bytes, size_t size, uint8_t* rows, size_t row_bytes, std::string* error) {
  PngJob job = JobOf(bytes, size, rows, row_bytes);
  return RunPng(&ReadPixels, &job, error);
}

}  // namespace athanor::internal
