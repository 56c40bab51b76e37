#include "athanor/data/images/codec.h"

#include <cstdio>
#include <cstring>
#include <string_view>

#include <png.h>

#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/data/images/formats.h"
#include "athanor/data/images/jpeg.h"

namespace athanor {
namespace {

constexpr int64_t kMaxPixels = int64_t{1} << 28;
// A header that promises more than the file can hold shall not cost memory. PNG: one bit per pixel at the limit of
// deflate. JPEG: twice what codes of one bit for 8 x 8 pixels hold. A WebP of one colour, and a BMP of run lengths,
// need next to nothing: up to a limit that is free, and beyond it as much as a PNG.
constexpr size_t kPngPixelsPerByte = 8 * 1032, kJpegPixelsPerByte = 2 * 8 * 64, kFreePixels = size_t{1} << 24;

absl::Status Damaged(const std::string& name, const std::string& what) {
  return absl::DataLossError(absl::StrCat("image ", name, ": ", what));
}

absl::Status CheckSize(const std::string& name, int64_t height, int64_t width, size_t size, size_t pixels_per_byte,
                       size_t free_pixels = 0) {
  if (height <= 0 || width <= 0 || height > kMaxPixels / width)
    return Damaged(name, absl::StrCat("found ", height, " x ", width, " pixels; allowed: 1 to ", kMaxPixels));
  const auto pixels = static_cast<size_t>(height * width);
  if (pixels <= free_pixels || pixels / pixels_per_byte <= size) return absl::OkStatus();
  return Damaged(name,
                 absl::StrCat("found ", height, " x ", width, " pixels, more than its ", size, " bytes can hold"));
}

absl::Status CheckBox(const std::string& name, const ImageBox& box, int64_t height, int64_t width) {
  if (box.top >= 0 && box.left >= 0 && box.height > 0 && box.width > 0 && box.top + box.height <= height &&
      box.left + box.width <= width) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("image ", name, ": found a box of ", box.height, " x ", box.width,
                                                 " at ", box.top, ", ", box.left, "; allowed: within ", height, " x ",
                                                 width));
}

// A format that is always read whole.
struct Format {
  bool (*read_header)(const void* bytes, size_t size, int64_t* height, int64_t* width, std::string* error);
  bool (*read)(const void* bytes, size_t size, uint8_t* rows, size_t row_bytes, std::string* error);
  size_t free_pixels;
};
constexpr Format kPng = {&internal::ReadPngHeader, &internal::ReadPng, 0};
constexpr Format kBmp = {&internal::ReadBmpHeader, &internal::ReadBmp, kFreePixels};
constexpr Format kWebp = {&internal::ReadWebpHeader, &internal::ReadWebp, kFreePixels};

bool IsJpeg(std::string_view bytes) {
  return bytes.substr(0, 3) == "\xff\xd8\xff";
}

// Null: another one, or none.
const Format* WholeFormatOf(std::string_view bytes) {
  constexpr size_t kBmpHeaders = 26;
  if (bytes.substr(0, 8) == "\x89PNG\r\n\x1a\n") return &kPng;
  if (bytes.substr(0, 4) == "RIFF" && bytes.size() >= 12 && bytes.substr(8, 4) == "WEBP") return &kWebp;
  return bytes.substr(0, 2) == "BM" && bytes.size() >= kBmpHeaders ? &kBmp : nullptr;
}

// A file that is none of those that are read.
absl::Status UnknownFormat(const std::string& name, std::string_view bytes) {
  if (bytes.empty()) return Damaged(name, "the file is empty");
  struct Other {
    std::string_view begin;
    const char* what;
  };
  constexpr Other kOthers[] = {{"GIF8", "a GIF"},
                               {std::string_view("II*\0", 4), "a TIFF"},
                               {std::string_view("MM\0*", 4), "a TIFF"},
                               {"version https://git-lfs", "a pointer of Git LFS"},
                               {"<", "text (HTML, XML, SVG)"}};
  std::string found = "an unknown format";
  for (const Other& other : kOthers) {
    if (bytes.substr(0, other.begin.size()) == other.begin) found = other.what;
  }
  if (bytes.size() > 12 && bytes.substr(4, 4) == "ftyp") found = "HEIF, AVIF or a film";
  return Damaged(name, absl::StrCat("found ", found, "; allowed: JPEG, PNG, WebP, BMP"));
}

absl::StatusOr<ImageHeader> WholeHeader(const std::string& name, const Format& format, const void* bytes, size_t size) {
  ImageHeader header;
  std::string error;
  if (!format.read_header(bytes, size, &header.height, &header.width, &error)) return Damaged(name, error);
  RETURN_IF_ERROR(CheckSize(name, header.height, header.width, size, kPngPixelsPerByte, format.free_pixels));
  return header;
}

}  // namespace

int64_t Reduced(int64_t size, int reduction) {
  return (size + reduction - 1) / reduction;
}

absl::StatusOr<ImageHeader> ReadImageHeader(const std::string& name, const void* bytes, size_t size) {
  const std::string_view text(static_cast<const char*>(bytes), size);
  if (const Format* format = WholeFormatOf(text); format != nullptr) return WholeHeader(name, *format, bytes, size);
  if (!IsJpeg(text)) return UnknownFormat(name, text);
  internal::JpegHeader found;
  std::string error;
  if (!internal::ReadJpegHeader(bytes, size, &found, &error)) return Damaged(name, error);
  RETURN_IF_ERROR(CheckSize(name, found.height, found.width, size, kJpegPixelsPerByte));
  return ImageHeader{.height = found.height, .width = found.width, .jpeg = true};
}

void ImagePixels::Reserve(size_t rows, size_t row_bytes) {
  if (size_ < rows * row_bytes) {
    storage_.reset();
    size_ = rows * row_bytes;
    storage_ = std::make_unique_for_overwrite<uint8_t[]>(size_);
  }
  rows_.row_bytes = row_bytes;
}

absl::Status ImagePixels::DecodeJpeg(const std::string& name, const void* bytes, size_t size, const ImageBox& box,
                                     int reduction) {
  internal::JpegHeader header;
  std::string error;
  if (!internal::ReadJpegHeader(bytes, size, &header, &error)) return Damaged(name, error);
  RETURN_IF_ERROR(CheckSize(name, header.height, header.width, size, kJpegPixelsPerByte));
  RETURN_IF_ERROR(CheckBox(name, box, Reduced(header.height, reduction), Reduced(header.width, reduction)));
  const internal::JpegWindow window = internal::DecodableWindow(
      header, {.reduction = reduction, .top = box.top, .left = box.left, .height = box.height, .width = box.width});
  Reserve(static_cast<size_t>(window.height), static_cast<size_t>(window.width * kPixelBytes));
  if (!internal::ReadJpegWindow(bytes, size, window, storage_.get(), rows_.row_bytes, &error))
    return Damaged(name, error);
  rows_.data = storage_.get() + static_cast<size_t>(box.top - window.top) * rows_.row_bytes +
               (box.left - window.left) * kPixelBytes;
  return absl::OkStatus();
}

absl::Status ImagePixels::DecodeWhole(const std::string& name, const void* bytes, size_t size, const ImageBox& box) {
  const Format& format = *WholeFormatOf({static_cast<const char*>(bytes), size});
  ASSIGN_OR_RETURN(const ImageHeader header, WholeHeader(name, format, bytes, size));
  RETURN_IF_ERROR(CheckBox(name, box, header.height, header.width));
  Reserve(static_cast<size_t>(header.height), static_cast<size_t>(header.width * kPixelBytes));
  std::string error;
  if (!format.read(bytes, size, storage_.get(), rows_.row_bytes, &error)) return Damaged(name, error);
  rows_.data = storage_.get() + static_cast<size_t>(box.top) * rows_.row_bytes + box.left * kPixelBytes;
  return absl::OkStatus();
}

absl::Status ImagePixels::Decode(const std::string& name, const void* bytes, size_t size, const ImageBox& box,
                                 int reduction) {
  const std::string_view text(static_cast<const char*>(bytes), size);
  const bool jpeg = IsJpeg(text);
  if (!jpeg && WholeFormatOf(text) == nullptr) return UnknownFormat(name, text);
  if ((reduction != 1 && reduction != 2 && reduction != 4 && reduction != 8) || (reduction != 1 && !jpeg)) {
    return absl::InvalidArgumentError(
        absl::StrCat("image ", name, ": found a reduction of ", reduction, "; allowed: 1, of a JPEG also 2, 4, 8"));
  }
  return jpeg ? DecodeJpeg(name, bytes, size, box, reduction) : DecodeWhole(name, bytes, size, box);
}

absl::StatusOr<torch::Tensor> DecodeImage(const std::string& name, const void* bytes, size_t size) {
  ASSIGN_OR_RETURN(const ImageHeader header, ReadImageHeader(name, bytes, size));
  ImagePixels pixels;
  RETURN_IF_ERROR(pixels.Decode(name, bytes, size, {.height = header.height, .width = header.width}));
  torch::Tensor image = torch::empty({3, header.height, header.width}, torch::kUInt8);
  uint8_t* red = image.data_ptr<uint8_t>();
  const int64_t plane = header.height * header.width;
  for (int64_t y = 0; y < header.height; ++y, red += header.width) {
    SplitPlanes(pixels.rows().data + static_cast<size_t>(y) * pixels.rows().row_bytes, header.width, red, red + plane,
                red + 2 * plane);
  }
  return image;
}

absl::StatusOr<torch::Tensor> ReadImage(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMaxImageFileBytes));
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
