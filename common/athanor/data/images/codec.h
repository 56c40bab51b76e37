// JPEG, PNG, WebP and BMP files to tensors, C x H x W, uint8, RGB. Any thread.
//
//   ASSIGN_OR_RETURN(torch::Tensor image, DecodeImage("cat.jpg", bytes.data(), bytes.size()));
//
// The format is recognised by its first bytes. The values are those of Pillow's convert("RGB") without anything else:
// grey images and palettes become RGB, CMYK by the inks' product, alpha is dropped; gamma, colour profiles and an
// orientation tag are not applied. Of 16-bit samples the upper 8 bits count (Pillow cuts grey ones off at 255). A JPEG
// may have a few bytes, or a run of one byte, before its end mark. DATA_LOSS names the image and what the decoder said;
// nothing of a damaged image comes back, not even its whole part. At most 2^28 pixels, no more than a file of so many
// bytes can hold, and of a progressive JPEG 100 scans; of a WebP one picture.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/data/images/resize.h"

namespace athanor {

constexpr size_t kMaxImageFileBytes = size_t{1} << 30;

absl::StatusOr<torch::Tensor> DecodeImage(const std::string& name, const void* bytes, size_t size);
absl::StatusOr<torch::Tensor> ReadImage(const std::string& path);

struct ImageHeader {
  int64_t height = 0, width = 0;
  bool jpeg = false;
};
// Reads no pixels: only what stands before them can be found damaged.
absl::StatusOr<ImageHeader> ReadImageHeader(const std::string& name, const void* bytes, size_t size);

// What libjpeg makes of a height or width at 1 / `reduction` of the size.
int64_t Reduced(int64_t size, int reduction);

struct ImageBox {
  int64_t top = 0, left = 0, height = 0, width = 0;
};

// A box of an image: the pixels that DecodeImage() gives there, in memory that is kept from image to image.
class ImagePixels {
 public:
  // `box` lies within the image made 1 / `reduction` of its size: 1, of a JPEG also 2, 4, 8; else INVALID_ARGUMENT.
  // What costs time is left out: of a JPEG the rows below the box are not decoded at all, those above and the columns
  // beside it only as far as the code words go. DATA_LOSS all the same when the file is cut anywhere, or has a mark
  // below the box where none may be (what random bytes have). Not noticed below the box, and above it where the decoder
  // goes on with wrong code words: other wrong bytes, such as zeros. Progressive files are always read whole.
  absl::Status Decode(const std::string& name, const void* bytes, size_t size, const ImageBox& box, int reduction = 1);

  // The box's first pixel and the way to the next row; until the next Decode().
  const PixelRows& rows() const { return rows_; }

 private:
  absl::Status DecodeJpeg(const std::string& name, const void* bytes, size_t size, const ImageBox& box, int reduction);
  absl::Status DecodeWhole(const std::string& name, const void* bytes, size_t size, const ImageBox& box);
  void Reserve(size_t rows, size_t row_bytes);

  // Not cleared: of what a damaged file promises only what it holds costs memory.
  std::unique_ptr<uint8_t[]> storage_;
  size_t size_ = 0;
  PixelRows rows_;
};

// A PNG of C x H x W, uint8, C = 1 or 3; for looking at what a data set gives.
absl::Status WritePng(const std::string& path, const torch::Tensor& image);

}  // namespace athanor
