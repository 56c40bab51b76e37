#include "athanor/data/image_codec.h"

#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <vector>

#include <jpeglib.h>
#include <png.h>

#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

constexpr int64_t kMaxPixels = int64_t{1} << 28;
constexpr size_t kMaxFileBytes = size_t{1} << 30;

absl::Status Damaged(const std::string& name, const std::string& what) {
  return absl::DataLossError(absl::StrCat("image ", name, ": ", what));
}

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

// A cut file is only a warning to the decoder: it would fill up with grey.
void JpegWarned(j_common_ptr info, int level) {
  if (level < 0) JpegFailed(info);
}

enum class JpegStage { kHeader, kPixels };

// Reads the size, or the pixels into `rows` (H x W x 3). False: errors->message says why.
bool RunJpeg(JpegErrors* errors, const void* bytes, size_t size, JpegStage stage, int64_t* height, int64_t* width,
             uint8_t* rows) {
  jpeg_decompress_struct info = {};
  info.err = jpeg_std_error(&errors->base);
  errors->base.error_exit = &JpegFailed;
  errors->base.emit_message = &JpegWarned;
  errors->message[0] = '\0';
  if (setjmp(errors->leave) != 0) {
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, static_cast<const unsigned char*>(bytes), static_cast<unsigned long>(size));
  jpeg_read_header(&info, TRUE);
  *height = info.image_height;
  *width = info.image_width;
  if (stage == JpegStage::kPixels) {
    info.out_color_space = JCS_RGB;
    jpeg_start_decompress(&info);
    while (info.output_scanline < info.output_height) {
      JSAMPROW row = rows + static_cast<size_t>(info.output_scanline) * static_cast<size_t>(*width) * 3;
      jpeg_read_scanlines(&info, &row, 1);
    }
    jpeg_finish_decompress(&info);
  }
  jpeg_destroy_decompress(&info);
  return true;
}

absl::Status CheckSize(const std::string& name, int64_t height, int64_t width) {
  if (height > 0 && width > 0 && height <= kMaxPixels / width) return absl::OkStatus();
  return Damaged(name, absl::StrCat("found ", height, " x ", width, " pixels; allowed: 1 to ", kMaxPixels));
}

torch::Tensor ChannelsFirst(const torch::Tensor& rows) {
  return rows.permute({2, 0, 1}).contiguous();
}

absl::StatusOr<torch::Tensor> DecodeJpeg(const std::string& name, const void* bytes, size_t size) {
  JpegErrors errors;
  int64_t height = 0, width = 0;
  if (!RunJpeg(&errors, bytes, size, JpegStage::kHeader, &height, &width, nullptr))
    return Damaged(name, errors.message);
  RETURN_IF_ERROR(CheckSize(name, height, width));
  torch::Tensor rows = torch::empty({height, width, 3}, torch::kUInt8);
  if (!RunJpeg(&errors, bytes, size, JpegStage::kPixels, &height, &width, rows.data_ptr<uint8_t>()))
    return Damaged(name, errors.message);
  return ChannelsFirst(rows);
}

absl::StatusOr<torch::Tensor> DecodePng(const std::string& name, const void* bytes, size_t size) {
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  if (png_image_begin_read_from_memory(&image, bytes, size) == 0) return Damaged(name, image.message);
  const absl::Status fits = CheckSize(name, image.height, image.width);
  if (!fits.ok()) {
    png_image_free(&image);
    return fits;
  }
  image.format = PNG_FORMAT_RGBA;
  torch::Tensor rows = torch::empty({image.height, image.width, 4}, torch::kUInt8);
  if (png_image_finish_read(&image, nullptr, rows.data_ptr<uint8_t>(), 0, nullptr) == 0)
    return Damaged(name, image.message);
  return ChannelsFirst(rows.slice(2, 0, 3));
}

}  // namespace

absl::StatusOr<torch::Tensor> DecodeImage(const std::string& name, const void* bytes, size_t size) {
  if (size >= 3 && std::memcmp(bytes, "\xff\xd8\xff", 3) == 0) return DecodeJpeg(name, bytes, size);
  if (size >= 8 && std::memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) == 0) return DecodePng(name, bytes, size);
  return Damaged(name, size == 0 ? "the file is empty" : "neither JPEG nor PNG");
}

absl::StatusOr<torch::Tensor> ReadImage(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMaxFileBytes));
  return DecodeImage(path, bytes.data(), bytes.size());
}

absl::Status WritePng(const std::string& path, const torch::Tensor& image) {
  if (image.dim() != 3 || image.scalar_type() != torch::kUInt8 || (image.size(0) != 1 && image.size(0) != 3)) {
    return absl::InvalidArgumentError(
        absl::StrCat("png: found ", c10::str(image.sizes()), "; allowed: 1 or 3 x H x W of uint8"));
  }
  const torch::Tensor rows = image.permute({1, 2, 0}).contiguous();
  png_image header = {};
  header.version = PNG_IMAGE_VERSION;
  header.height = static_cast<png_uint_32>(rows.size(0));
  header.width = static_cast<png_uint_32>(rows.size(1));
  header.format = rows.size(2) == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  png_alloc_size_t size = 0;
  std::string bytes;
  if (png_image_write_to_memory(&header, nullptr, &size, 0, rows.data_ptr<uint8_t>(), 0, nullptr) != 0) {
    bytes.resize(size);
    if (png_image_write_to_memory(&header, bytes.data(), &size, 0, rows.data_ptr<uint8_t>(), 0, nullptr) != 0)
      return WriteFileAtomically(path, std::string_view(bytes).substr(0, size));
  }
  return absl::InternalError(absl::StrCat("png ", path, ": ", header.message));
}

}  // namespace athanor
