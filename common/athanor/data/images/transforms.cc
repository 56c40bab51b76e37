#include "athanor/data/images/transforms.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/DistributionsHelper.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "athanor/data/images/geometry.h"

namespace athanor {
namespace {

// The values of torch::rand({}, random, torch::kFloat64), without a tensor each.
double Uniform(at::Generator& random, double low, double high) {
  const std::scoped_lock lock(random.mutex());
  const at::uniform_real_distribution<double> unit(0, 1);
  return unit(at::check_generator<at::CPUGeneratorImpl>(random)) * (high - low) + low;
}

// In [0, bound).
int64_t Below(at::Generator& random, int64_t bound) {
  return std::min(static_cast<int64_t>(Uniform(random, 0, static_cast<double>(bound))), bound - 1);
}

void RandomCropStep(ImageGeometry& geometry, at::Generator& random, int64_t size) {
  const int64_t rows = geometry.height() - size + 1, columns = geometry.width() - size + 1;
  TORCH_CHECK(rows > 0 && columns > 0, "a crop of ", size, " does not fit into ", geometry.height(), " x ",
              geometry.width());
  const int64_t top = Below(random, rows);
  geometry.Crop(top, Below(random, columns), size, size);
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
  const auto step = [size](ImageGeometry& geometry, at::Generator&) {
    const int64_t height = geometry.height(), width = geometry.width();
    const auto longer = [&](int64_t side, int64_t other) { return std::max<int64_t>(size * side / other, 1); };
    height <= width ? geometry.Resize(size, longer(width, height)) : geometry.Resize(longer(height, width), size);
  };
  return GeometricTransform{.step = step, .resizes = true};
}

ImageTransform Resize(int64_t height, int64_t width) {
  const auto step = [=](ImageGeometry& geometry, at::Generator&) { geometry.Resize(height, width); };
  return GeometricTransform{.step = step, .resizes = true};
}

ImageTransform CenterCrop(int64_t size) {
  const auto step = [size](ImageGeometry& geometry, at::Generator&) {
    geometry.Crop((geometry.height() - size) / 2, (geometry.width() - size) / 2, size, size);
  };
  return GeometricTransform{.step = step};
}

ImageTransform RandomCrop(int64_t size, int64_t padding) {
  const auto step = [size](ImageGeometry& geometry, at::Generator& random) { RandomCropStep(geometry, random, size); };
  const GeometricTransform crop{.step = step};
  if (padding == 0) return crop;
  return [=](const torch::Tensor& image, at::Generator& random) {
    return crop(torch::constant_pad_nd(image, {padding, padding, padding, padding}, 0), random);
  };
}

ImageTransform RandomResizedCrop(int64_t size, double min_scale, double max_scale, double min_ratio, double max_ratio) {
  const auto step = [=](ImageGeometry& geometry, at::Generator& random) {
    const int64_t height = geometry.height(), width = geometry.width();
    constexpr int kTries = 10;
    for (int i = 0; i < kTries; ++i) {
      const double area = Uniform(random, min_scale, max_scale) * static_cast<double>(height * width);
      const double ratio = std::exp(Uniform(random, std::log(min_ratio), std::log(max_ratio)));
      const int64_t w = std::llround(std::sqrt(area * ratio)), h = std::llround(std::sqrt(area / ratio));
      if (w < 1 || h < 1 || w > width || h > height) continue;
      const int64_t top = Below(random, height - h + 1);
      geometry.Crop(top, Below(random, width - w + 1), h, w);
      return geometry.Resize(size, size);
    }
    // No such crop in this image: the middle, as near to the ratio as it goes.
    const double own = static_cast<double>(width) / static_cast<double>(height);
    const double ratio = std::clamp(own, min_ratio, max_ratio);
    const int64_t w = own > ratio ? std::llround(static_cast<double>(height) * ratio) : width;
    const int64_t h = own < ratio ? std::llround(static_cast<double>(width) / ratio) : height;
    geometry.Crop((height - h) / 2, (width - w) / 2, h, w);
    geometry.Resize(size, size);
  };
  return GeometricTransform{.step = step, .resizes = true};
}

ImageTransform RandomHorizontalFlip(double probability) {
  const auto step = [probability](ImageGeometry& geometry, at::Generator& random) {
    if (Uniform(random, 0, 1) < probability) geometry.Flip();
  };
  return GeometricTransform{.step = step, .flips = true};
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
  return PointwiseTransform{.apply = [](const torch::Tensor& image) {
    return image.scalar_type() == torch::kUInt8 ? image.to(torch::kFloat32).div_(255) : image.to(torch::kFloat32);
  }};
}

ImageTransform Normalize(std::vector<double> mean, std::vector<double> deviation) {
  const torch::Tensor means = torch::tensor(mean, torch::kFloat32).view({-1, 1, 1});
  const torch::Tensor deviations = torch::tensor(deviation, torch::kFloat32).view({-1, 1, 1});
  const auto apply = [=](const torch::Tensor& image) {
    TORCH_CHECK(image.is_floating_point(), "normalise needs floating point: put ToFloat() before it");
    TORCH_CHECK(means.size(0) == image.size(0) && deviations.size(0) == image.size(0), "normalise: ", image.size(0),
                " channels, ", means.size(0), " means, ", deviations.size(0), " deviations");
    return (image - means).div_(deviations);
  };
  // Of different lengths: no image has that many channels, and the first one says so.
  const int64_t channels = mean.size() == deviation.size() ? static_cast<int64_t>(mean.size()) : -1;
  return PointwiseTransform{.apply = apply, .channels = channels, .needs_float = true};
}

}  // namespace athanor
