#include "athanor/data/images/jpeg.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include <jpeglib.h>

#include <jerror.h>

namespace athanor::internal {
namespace {

// The decoder reports errors by leaving through a jump; no object with a destructor may live on its way.
struct JpegErrors {
  jpeg_error_mgr base;
  std::jmp_buf leave;
  char message[JMSG_LENGTH_MAX];
};

void JpegFailed(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  errors->base.format_message(info, errors->message);
  std::longjmp(errors->leave, 1);
}

// Bytes that some programs leave before a mark: all pixels are there. What damage leaves undecoded is longer and mixed;
// between restart marks it may be as short.
bool IsPadding(const jpeg_decompress_struct& info) {
  constexpr int kFewBytes = 16, kFirstRestart = 0xd0, kLastRestart = 0xd7;
  if (info.err->msg_code != JWRN_EXTRANEOUS_DATA) return false;
  const int count = info.err->msg_parm.i[0], mark = info.err->msg_parm.i[1];
  if (mark >= kFirstRestart && mark <= kLastRestart) return false;
  const unsigned char* end = info.src->next_input_byte;  // behind the last of them
  return count <= kFewBytes || std::all_of(end - count, end, [&](unsigned char byte) { return byte == end[-1]; });
}

// A cut file is only a warning to the decoder: it would fill up with grey.
void JpegWarned(j_common_ptr info, int level) {
  if (level < 0 && !IsPadding(*reinterpret_cast<j_decompress_ptr>(info))) JpegFailed(info);
}

// Every scan may pass over the whole image for a few bytes of the file. Encoders make up to a dozen or two.
void WatchScans(j_common_ptr info) {
  constexpr int kMaxScans = 100;
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= kMaxScans) return;
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  std::snprintf(errors->message, sizeof errors->message, "more than %d scans", kMaxScans);
  std::longjmp(errors->leave, 1);
}

void ReadHeader(jpeg_decompress_struct* info, const void* bytes, size_t size) {
  jpeg_create_decompress(info);
  jpeg_mem_src(info, static_cast<const unsigned char*>(bytes), static_cast<unsigned long>(size));
  jpeg_read_header(info, TRUE);
}

// `body(info)` with the jump caught; false: `error` is what the decoder said.
bool RunJpeg(void (*body)(jpeg_decompress_struct* info, void* argument), void* argument, std::string* error) {
  JpegErrors errors;
  jpeg_decompress_struct info = {};
  info.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = &JpegFailed;
  errors.base.emit_message = &JpegWarned;
  errors.message[0] = '\0';
  if (setjmp(errors.leave) != 0) {
    jpeg_destroy_decompress(&info);
    *error = errors.message;
    return false;
  }
  body(&info, argument);
  jpeg_destroy_decompress(&info);
  return true;
}

// Grey, and colour of half or the whole resolution: what cameras and image editors write.
bool IsCommon(const jpeg_decompress_struct& info) {
  if (info.num_components != 1 && info.num_components != 3) return false;
  for (int i = 0; i < info.num_components; ++i) {
    const jpeg_component_info& component = info.comp_info[i];
    const int limit = i == 0 ? 2 : 1;
    if (component.h_samp_factor > limit || component.v_samp_factor > limit) return false;
  }
  return true;
}

// What is not decoded is looked through for its marks alone: a warning's number, 0 for none. In coded data a 0xff is
// followed by 0 or a restart mark; after it come segments with their length, and the end mark.
int ReadRest(const jpeg_decompress_struct& info) {
  constexpr int kEndOfImage = 0xd9;
  if (info.unread_marker == kEndOfImage) return 0;
  const unsigned char* at = info.src->next_input_byte;
  const unsigned char* const end = at + info.src->bytes_in_buffer;
  while (true) {
    at = static_cast<const unsigned char*>(std::memchr(at, 0xff, static_cast<size_t>(end - at)));
    if (at == nullptr || ++at == end) return JWRN_JPEG_EOF;
    const int mark = *at;
    if (mark == kEndOfImage) return 0;
    if (mark == 0xff) continue;  // one of several before a mark
    ++at;
    if (mark <= 1 || (mark >= 0xd0 && mark <= 0xd7)) continue;
    // Tables, scans, what applications add, comments; nothing else may follow a scan.
    if (mark != 0xc4 && (mark < 0xda || mark > 0xef) && mark != 0xfe) return JWRN_HIT_MARKER;
    if (end - at < 2) return JWRN_JPEG_EOF;
    at += std::min<ptrdiff_t>(end - at, at[0] << 8 | at[1]);
  }
}

// In place, and as Pillow does: four colours are taken as Adobe writes them, upside down.
void InkToLight(uint8_t* pixel, JDIMENSION width) {
  constexpr int kInks = 3, kPixelBytes = 4, kMost = 255;
  for (JDIMENSION x = 0; x < width; ++x, pixel += kPixelBytes) {
    const int light = pixel[kInks];  // what black leaves
    for (int i = 0; i < kInks; ++i) {
      const int product = (kMost - pixel[i]) * light + 128;
      pixel[i] = static_cast<uint8_t>(light - (((product >> 8) + product) >> 8));
    }
  }
}

struct WindowJob {
  const void* bytes;
  size_t size;
  JpegWindow window;
  uint8_t* rows;
  size_t row_bytes;
};

void ReadWindow(jpeg_decompress_struct* info, void* argument) {
  const auto& job = *static_cast<const WindowJob*>(argument);
  const JpegWindow& window = job.window;
  jpeg_progress_mgr progress = {};
  progress.progress_monitor = &WatchScans;
  ReadHeader(info, job.bytes, job.size);
  info->progress = &progress;
  const bool inks = info->num_components == 4;
  info->out_color_space = inks ? JCS_CMYK : JCS_EXT_RGBX;
  // Only files that lack scans would be smoothed; a window of them otherwise than the whole.
  info->do_block_smoothing = FALSE;
  info->scale_num = 1;
  info->scale_denom = static_cast<unsigned>(window.reduction);
  jpeg_start_decompress(info);
  if (window.width < info->output_width) {
    auto left = static_cast<JDIMENSION>(window.left), width = static_cast<JDIMENSION>(window.width);
    jpeg_crop_scanline(info, &left, &width);
    if (left != window.left || width != window.width) ERREXIT(info, JERR_BAD_CROP_SPEC);
  }
  if (window.top > 0) jpeg_skip_scanlines(info, static_cast<JDIMENSION>(window.top));
  const auto end = static_cast<JDIMENSION>(window.top + window.height);
  while (info->output_scanline < end) {
    JSAMPROW row = job.rows + (info->output_scanline - static_cast<size_t>(window.top)) * job.row_bytes;
    jpeg_read_scanlines(info, &row, 1);
    if (inks) InkToLight(row, info->output_width);
  }
  if (end == info->output_height) {
    jpeg_finish_decompress(info);
  } else if (const int warning = jpeg_input_complete(info) ? 0 : ReadRest(*info); warning != 0) {
    WARNMS(info, warning);
  }
}

}  // namespace

bool ReadJpegHeader(const void* bytes, size_t size, JpegHeader* header, std::string* error) {
  struct Job {
    const void* bytes;
    size_t size;
    JpegHeader* header;
  } job = {bytes, size, header};
  const auto read = [](jpeg_decompress_struct* info, void* argument) {
    const auto& of = *static_cast<const Job*>(argument);
    ReadHeader(info, of.bytes, of.size);
    *of.header = {.height = info->image_height, .width = info->image_width, .only_whole = !IsCommon(*info)};
  };
  return RunJpeg(read, &job, error);
}

JpegWindow DecodableWindow(const JpegHeader& header, const JpegWindow& wanted) {
  const int64_t reduction = wanted.reduction;
  const int64_t height = (header.height + reduction - 1) / reduction,
                width = (header.width + reduction - 1) / reduction;
  if (header.only_whole) return {.reduction = wanted.reduction, .height = height, .width = width};
  // The decoder begins at whole blocks, and takes the window's edges for the image's when it spreads colour.
  constexpr int64_t kBlock = 16, kMargin = 2;
  const int64_t left = std::max<int64_t>(wanted.left - kMargin, 0) / kBlock * kBlock;
  const int64_t right = std::min(wanted.left + wanted.width + kMargin, width);
  return {
      .reduction = wanted.reduction, .top = wanted.top, .left = left, .height = wanted.height, .width = right - left};
}

bool ReadJpegWindow(const void* bytes, size_t size, const JpegWindow& window, uint8_t* rows, size_t row_bytes,
                    std::string* error) {
  WindowJob job = {bytes, size, window, rows, row_bytes};
  return RunJpeg(&ReadWindow, &job, error);
}

}  // namespace athanor::internal
