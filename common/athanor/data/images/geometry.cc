#include "athanor/data/images/geometry.h"

#include <algorithm>
#include <vector>

#include "athanor/data/images/resize.h"

namespace athanor {
namespace {

// Up to four channels at a time are the bytes of a pixel.
torch::Tensor ResizedBytes(const torch::Tensor& image, int64_t height, int64_t width) {
  const int64_t channels = image.size(0), rows = image.size(1), columns = image.size(2);
  torch::Tensor resized = torch::empty({channels, height, width}, torch::kUInt8);
  const ResampleTaps across = BilinearTaps(columns, 0, static_cast<double>(columns), width, 0, width);
  const ResampleTaps down = BilinearTaps(rows, 0, static_cast<double>(rows), height, 0, height);
  std::vector<uint8_t> scratch, pixels(static_cast<size_t>(rows * columns * kPixelBytes));
  for (int64_t first = 0; first < channels; first += kPixelBytes) {
    const int64_t count = std::min(kPixelBytes, channels - first);
    torch::from_blob(pixels.data(), {rows, columns, kPixelBytes}, torch::kUInt8)
        .narrow(2, 0, count)
        .copy_(image.narrow(0, first, count).permute({1, 2, 0}));
    uint8_t* planes = resized[first].data_ptr<uint8_t>();
    ResizePixels({pixels.data(), static_cast<size_t>(columns * kPixelBytes)}, rows, across, down, /*mirrored=*/false,
                 &scratch, [&](int64_t y, const uint8_t* row) {
                   for (int64_t channel = 0; channel < count; ++channel) {
                     uint8_t* out = planes + (channel * height + y) * width;
                     for (int64_t x = 0; x < width; ++x) out[x] = row[x * kPixelBytes + channel];
                   }
                 });
  }
  return resized;
}

torch::Tensor Resized(const torch::Tensor& image, int64_t height, int64_t width) {
  TORCH_CHECK(height > 0 && width > 0, "resizing to ", height, " x ", width, "; allowed: at least 1 x 1");
  if (image.scalar_type() == torch::kUInt8 && image.device().is_cpu()) return ResizedBytes(image, height, width);
  const torch::Tensor wide = image.unsqueeze(0).to(torch::kFloat32);
  const torch::Tensor scaled = at::_upsample_bilinear2d_aa(wide, {height, width}, /*align_corners=*/false).squeeze(0);
  return image.is_floating_point() ? scaled.to(image.scalar_type()) : scaled.round().to(image.scalar_type());
}

torch::Tensor Part(const torch::Tensor& image, const ImageBox& box) {
  return image.slice(1, box.top, box.top + box.height).slice(2, box.left, box.left + box.width);
}

}  // namespace

ImageGeometry::ImageGeometry(int64_t height, int64_t width)
    : source_{.height = height, .width = width}, window_(source_), scaled_height_(height), scaled_width_(width) {}

void ImageGeometry::Crop(int64_t top, int64_t left, int64_t height, int64_t width) {
  TORCH_CHECK(top >= 0 && left >= 0 && height > 0 && width > 0 && top + height <= window_.height &&
                  left + width <= window_.width,
              "a crop of ", height, " x ", width, " does not fit into an image of ", window_.height, " x ",
              window_.width);
  const int64_t own_left = mirrored_ ? window_.width - left - width : left;
  window_ = {.top = window_.top + top, .left = window_.left + own_left, .height = height, .width = width};
  if (resized_) return;
  source_ = {.top = source_.top + window_.top, .left = source_.left + window_.left, .height = height, .width = width};
  window_ = {.height = height, .width = width};
  scaled_height_ = height;
  scaled_width_ = width;
}

void ImageGeometry::Resize(int64_t height, int64_t width) {
  if (height == window_.height && width == window_.width) return;
  TORCH_CHECK(height > 0 && width > 0, "resizing to ", height, " x ", width, "; allowed: at least 1 x 1");
  TORCH_CHECK(!resized_ && !mirrored_, "an image is resized once, before it is mirrored");
  scaled_height_ = height;
  scaled_width_ = width;
  window_ = {.height = height, .width = width};
  resized_ = true;
}

void ImageGeometry::Flip() {
  mirrored_ = !mirrored_;
}

torch::Tensor GeometricTransform::operator()(const torch::Tensor& image, at::Generator& random) const {
  ImageGeometry geometry(image.size(1), image.size(2));
  step(geometry, random);
  torch::Tensor result = Part(image, geometry.source());
  if (geometry.resizes()) result = Resized(result, geometry.scaled_height(), geometry.scaled_width());
  result = Part(result, geometry.window());
  return geometry.mirrored() ? result.flip(2) : result;
}

}  // namespace athanor
