// What a chain of crops, one resizing and flips does to an image, as numbers: which part of it, made how large, which
// part of that, which side left. Nothing is computed until the whole is known. Misuse throws c10::Error.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>

#include "athanor/data/images/codec.h"

namespace athanor {

class ImageGeometry {
 public:
  ImageGeometry(int64_t height, int64_t width);

  // What the next step sees.
  int64_t height() const { return window_.height; }
  int64_t width() const { return window_.width; }

  void Crop(int64_t top, int64_t left, int64_t height, int64_t width);
  // At most once to another size, and before Flip().
  void Resize(int64_t height, int64_t width);
  void Flip();  // left and right

  // `source` of the image becomes scaled_height x scaled_width, `window` of that is left, then mirrored.
  const ImageBox& source() const { return source_; }
  int64_t scaled_height() const { return scaled_height_; }
  int64_t scaled_width() const { return scaled_width_; }
  const ImageBox& window() const { return window_; }
  bool mirrored() const { return mirrored_; }
  bool resizes() const { return resized_; }

 private:
  ImageBox source_, window_;
  int64_t scaled_height_, scaled_width_;
  bool mirrored_ = false, resized_ = false;
};

// Draws what is random and applies it.
using GeometryStep = std::function<void(ImageGeometry& geometry, at::Generator& random)>;

// An image transform that a pipeline can look into: the step, and the same done to a tensor.
struct GeometricTransform {
  GeometryStep step;
  bool resizes = false, flips = false;  // it may do so
  torch::Tensor operator()(const torch::Tensor& image, at::Generator& random) const;
};

// One that treats every value by itself. `channels`: the only number of them that it takes, 0 for any.
struct PointwiseTransform {
  std::function<torch::Tensor(const torch::Tensor& image)> apply;
  int64_t channels = 0;
  bool needs_float = false;
  torch::Tensor operator()(const torch::Tensor& image, at::Generator&) const { return apply(image); }
};

}  // namespace athanor
