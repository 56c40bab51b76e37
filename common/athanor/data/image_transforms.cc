#include "athanor/data/image_transforms.h"

#include <algorithm>
#include <cmath>

namespace athanor {
namespace {

double Uniform(at::Generator& random, double low, double high) {
  return torch::rand({}, random, torch::kFloat64).item<double>() * (high - low) + low;
}

// In [0, bound).
int64_t Below(at::Generator& random, int64_t bound) {
  return std::min(static_cast<int64_t>(Uniform(random, 0, static_cast<double>(bound))), bound - 1);
}

torch::Tensor Resized(const torch::Tensor& image, int64_t height, int64_t width) {
  if (image.size(1) == height && image.size(2) == width) return image;
  const torch::Tensor wide = image.unsqueeze(0).to(torch::kFloat32);
  const torch::Tensor scaled = at::_upsample_bilinear2d_aa(wide, {height, width}, /*align_corners=*/false).squeeze(0);
  if (image.is_floating_point()) return scaled.to(image.scalar_type());
  return scaled.round().clamp(0, 255).to(image.scalar_type());
}

torch::Tensor Cropped(const torch::Tensor& image, int64_t top, int64_t left, int64_t height, int64_t width) {
  TORCH_CHECK(top >= 0 && left >= 0 && top + height <= image.size(1) && left + width <= image.size(2), "a crop of ",
              height, " x ", width, " does not fit into an image of ", image.size(1), " x ", image.size(2));
  return image.slice(1, top, top + height).slice(2, left, left + width);
}

}  // namespace

uint64_t SampleSeed(uint64_t seed, int64_t epoch, int64_t index) {
  uint64_t mixed = seed;
  for (const uint64_t part : {static_cast<uint64_t>(epoch), static_cast<uint64_t>(index)}) {
    // splitmix64
    mixed += 0x9e3779b97f4a7c15ull + part;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ull;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebull;
    mixed ^= mixed >> 31;
  }
  return mixed;
}

ImageTransforms& ImageTransforms::Add(ImageTransform transform) {
  transforms_.push_back(std::move(transform));
  return *this;
}

torch::Tensor ImageTransforms::Apply(torch::Tensor image, uint64_t seed) const {
  const torch::NoGradGuard no_grad;
  TORCH_CHECK(image.dim() == 3 && image.numel() > 0, "an image is C x H x W, found ", image.sizes());
  at::Generator random = at::detail::createCPUGenerator(seed);
  for (const ImageTransform& transform : transforms_) image = transform(image, random);
  return image.contiguous();
}

ImageTransform Resize(int64_t size) {
  return [size](const torch::Tensor& image, at::Generator&) {
    const int64_t height = image.size(1), width = image.size(2);
    const auto longer = [&](int64_t side, int64_t other) { return std::max<int64_t>(size * side / other, 1); };
    return height <= width ? Resized(image, size, longer(width, height)) : Resized(image, longer(height, width), size);
  };
}

ImageTransform Resize(int64_t height, int64_t width) {
  return [=](const torch::Tensor& image, at::Generator&) { return Resized(image, height, width); };
}

ImageTransform CenterCrop(int64_t size) {
  return [size](const torch::Tensor& image, at::Generator&) {
    return Cropped(image, (image.size(1) - size) / 2, (image.size(2) - size) / 2, size, size);
  };
}

ImageTransform RandomCrop(int64_t size, int64_t padding) {
  return [=](const torch::Tensor& image, at::Generator& random) {
    const torch::Tensor wide =
        padding == 0 ? image : torch::constant_pad_nd(image, {padding, padding, padding, padding}, 0);
    const int64_t rows = wide.size(1) - size + 1, columns = wide.size(2) - size + 1;
    TORCH_CHECK(rows > 0 && columns > 0, "a crop of ", size, " does not fit into ", wide.sizes());
    const int64_t top = Below(random, rows);
    return Cropped(wide, top, Below(random, columns), size, size);
  };
}

ImageTransform RandomResizedCrop(int64_t size, double min_scale, double max_scale, double min_ratio, double max_ratio) {
  return [=](const torch::Tensor& image, at::Generator& random) {
    const int64_t height = image.size(1), width = image.size(2);
    constexpr int kTries = 10;
    for (int i = 0; i < kTries; ++i) {
      const double area = Uniform(random, min_scale, max_scale) * static_cast<double>(height * width);
      const double ratio = std::exp(Uniform(random, std::log(min_ratio), std::log(max_ratio)));
      const int64_t w = std::llround(std::sqrt(area * ratio)), h = std::llround(std::sqrt(area / ratio));
      if (w < 1 || h < 1 || w > width || h > height) continue;
      const int64_t top = Below(random, height - h + 1);
      return Resized(Cropped(image, top, Below(random, width - w + 1), h, w), size, size);
    }
    // No such crop in this image: the middle, as near to the ratio as it goes.
    const double own = static_cast<double>(width) / static_cast<double>(height);
    const double ratio = std::clamp(own, min_ratio, max_ratio);
    const int64_t w = own > ratio ? std::llround(static_cast<double>(height) * ratio) : width;
    const int64_t h = own < ratio ? std::llround(static_cast<double>(width) / ratio) : height;
    return Resized(Cropped(image, (height - h) / 2, (width - w) / 2, h, w), size, size);
  };
}

ImageTransform RandomHorizontalFlip(double probability) {
  return [=](const torch::Tensor& image, at::Generator& random) {
    return Uniform(random, 0, 1) < probability ? image.flip(2) : image;
  };
}

ImageTransform Grayscale() {
  return [](const torch::Tensor& image, at::Generator&) {
    if (image.size(0) == 1) return image;
    TORCH_CHECK(image.size(0) == 3, "grey from ", image.size(0), " channels; allowed: 1, 3");
    const torch::Tensor weights = torch::tensor({0.299, 0.587, 0.114}).view({3, 1, 1});
    const torch::Tensor grey = (image.to(torch::kFloat32) * weights).sum(0, /*keepdim=*/true);
    return image.is_floating_point() ? grey.to(image.scalar_type())
                                     : grey.round().clamp(0, 255).to(image.scalar_type());
  };
}

ImageTransform ToFloat() {
  return [](const torch::Tensor& image, at::Generator&) {
    return image.scalar_type() == torch::kUInt8 ? image.to(torch::kFloat32) / 255 : image.to(torch::kFloat32);
  };
}

ImageTransform Normalize(std::vector<double> mean, std::vector<double> deviation) {
  const torch::Tensor means = torch::tensor(mean, torch::kFloat32).view({-1, 1, 1});
  const torch::Tensor deviations = torch::tensor(deviation, torch::kFloat32).view({-1, 1, 1});
  return [=](const torch::Tensor& image, at::Generator&) {
    TORCH_CHECK(image.is_floating_point(), "normalise needs floating point: put ToFloat() before it");
    TORCH_CHECK(means.size(0) == image.size(0) && deviations.size(0) == image.size(0), "normalise: ", image.size(0),
                " channels, ", means.size(0), " means, ", deviations.size(0), " deviations");
    return (image - means) / deviations;
  };
}

}  // namespace athanor
