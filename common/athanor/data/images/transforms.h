// What is done to an image between its file and its batch. C x H x W in, C x H x W out.
//
//   ImageTransforms transforms;
//   transforms.Add(RandomResizedCrop(224)).Add(RandomHorizontalFlip()).Add(ToFloat())
//       .Add(Normalize({0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}));
//   torch::Tensor ready = transforms.Apply(image, /*seed=*/SampleSeed(seed, epoch, index));
//
// Random ones draw from the generator that Apply() seeds for the sample: the same seed, epoch and index give the same
// image in every run, on every rank and loader thread. Misuse (an empty image, a crop larger than the image) throws
// c10::Error, as ATen does. Thread-safe. Encoded images: athanor/data/images/pipeline.h does the same in one pass.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace athanor {

using ImageTransform = std::function<torch::Tensor(const torch::Tensor& image, at::Generator& random)>;

// Well mixed: neighbouring indices and epochs have nothing in common.
uint64_t SampleSeed(uint64_t seed, int64_t epoch, int64_t index);

class ImageTransforms {
 public:
  ImageTransforms& Add(ImageTransform transform);
  torch::Tensor Apply(torch::Tensor image, uint64_t seed) const;
  bool empty() const { return transforms_.empty(); }
  const std::vector<ImageTransform>& all() const { return transforms_; }

 private:
  std::vector<ImageTransform> transforms_;
};

// Bilinear with antialiasing; of uint8 the values of Pillow up to 12, bit for bit (13 takes the rows first for some
// sizes: within 1). The first makes the shorter side `size` and keeps the ratio.
ImageTransform Resize(int64_t size);
ImageTransform Resize(int64_t height, int64_t width);
ImageTransform CenterCrop(int64_t size);                       // size x size
ImageTransform RandomCrop(int64_t size, int64_t padding = 0);  // after padding with zeros on all sides
// A crop of a random share of the area and a random ratio, resized to size x size.
ImageTransform RandomResizedCrop(int64_t size, double min_scale = 0.08, double max_scale = 1.0,
                                 double min_ratio = 3.0 / 4, double max_ratio = 4.0 / 3);
ImageTransform RandomHorizontalFlip(double probability = 0.5);
ImageTransform Grayscale();  // 3 x H x W -> 1 x H x W, luma weights 0.299, 0.587, 0.114
ImageTransform ToFloat();    // uint8 -> float32 in [0, 1]
// (x - mean) / deviation per channel; floating point in.
ImageTransform Normalize(std::vector<double> mean, std::vector<double> deviation);

}  // namespace athanor
