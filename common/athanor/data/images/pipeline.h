// Encoded images to one batch: what ImageTransforms makes of the decoded images, bit for bit, in one pass.
//
//   const ImagePipeline pipeline(transforms);              // once
//   ImageCollator batch(pipeline, /*count=*/2);            // per batch
//   RETURN_IF_ERROR(batch.Add("a.jpg", a.data(), a.size(), SampleSeed(seed, epoch, 0)));
//   RETURN_IF_ERROR(batch.Add("b.png", b.data(), b.size(), SampleSeed(seed, epoch, 1)));
//   torch::Tensor images = batch.Take();                   // N x C x H x W
//
// The beginning of the chain is fused: crops, at most one resizing and flips, then ToFloat() and Normalize(). They are
// drawn before anything is decoded, in the order and from the generator that ImageTransforms uses; only the pixels that
// the crop needs are decoded; the result is written to its place in the batch. From the first transform on that does
// not fit (Grayscale, RandomCrop with padding, a function of the user's, a second resizing, a flip before the resizing)
// the chain goes on tensor by tensor.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/data/batch_memory.h"
#include "athanor/data/images/codec.h"
#include "athanor/data/images/geometry.h"
#include "athanor/data/images/transforms.h"

namespace athanor {

struct ImagePipelineOptions {
  // JPEGs of which the crop is at least twice as high and wide as what it is resized to are decoded at 1/2, 1/4 or 1/8
  // of their size, the smallest that keeps the crop as large as the result (Pillow's draft mode). A photograph of 12
  // million pixels takes two thirds of the time, as its code words are read all the same; what comes out is a little
  // sharper than what ImageTransforms gives, not bit-equal.
  bool reduced_decode = false;
};

// Thread-safe.
class ImagePipeline {
 public:
  explicit ImagePipeline(const ImageTransforms& transforms, const ImagePipelineOptions& options = {});

  // How many of the chain's transforms are fused.
  int64_t fused() const { return fused_; }

 private:
  friend class ImageCollator;
  ImagePipelineOptions options_;
  std::vector<GeometryStep> steps_;
  torch::Tensor table_;  // 3 x 256: what the pointwise ones make of each value; undefined without any
  std::vector<ImageTransform> rest_;
  int64_t fused_ = 0;
  std::shared_ptr<BatchMemory> memory_ = std::make_shared<BatchMemory>();
};

// One thread.
class ImageCollator {
 public:
  // `pipeline` outlives it.
  ImageCollator(const ImagePipeline& pipeline, int64_t count) : pipeline_(pipeline), count_(count) {}

  // DATA_LOSS: the image is damaged (codec.h lists what is not noticed); INVALID_ARGUMENT: it comes out in another
  // size than the first one, or is one more than `count`; UNKNOWN: a transform threw. All name the image; the batch is
  // as it was before.
  absl::Status Add(const std::string& name, const void* bytes, size_t size, uint64_t seed);

  // The images that were added; undefined without any.
  torch::Tensor Take();

 private:
  absl::Status Render(const std::string& name, const void* bytes, size_t size, const ImageHeader& header,
                      const ImageGeometry& geometry, torch::Tensor image);
  absl::StatusOr<torch::Tensor> Slot(const std::string& name, torch::IntArrayRef sizes,
                                     const torch::TensorOptions& options);

  const ImagePipeline& pipeline_;
  const int64_t count_;
  int64_t added_ = 0;
  torch::Tensor batch_;
  ImagePixels pixels_;
  std::vector<uint8_t> scratch_;
};

}  // namespace athanor
