#include "athanor/data/images/pipeline.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/data/images/resize.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

// One side of the image: which of its pixels are read, and what is made of them.
struct Side {
  int64_t first = 0, count = 0;  // to be decoded
  ResampleTaps taps;             // count from `first` on
};

// `source_first`, `source_size` in pixels of the image at full size; `size`: what it is resized to.
Side PlanSide(int64_t source_first, int64_t source_size, int reduction, int64_t size, int64_t window_first,
              int64_t window_size) {
  const double begin = static_cast<double>(source_first) / reduction;
  const double end = static_cast<double>(source_first + source_size) / reduction;
  const double floor = std::floor(begin);
  const auto in_size = static_cast<int64_t>(std::ceil(end) - floor);
  Side side;
  side.taps = BilinearTaps(in_size, begin - floor, end - floor, size, window_first, window_size);
  const TapRange range = InputsOf(side.taps);
  Rebase(&side.taps, range.first);
  side.first = static_cast<int64_t>(floor) + range.first;
  side.count = range.last - range.first;
  return side;
}

int Reduction(const ImageHeader& header, const ImageGeometry& geometry) {
  int reduction = 1;
  const ImageBox& source = geometry.source();
  while (header.jpeg && reduction < 8 && source.height >= 2 * reduction * geometry.scaled_height() &&
         source.width >= 2 * reduction * geometry.scaled_width()) {
    reduction *= 2;
  }
  return reduction;
}

}  // namespace

ImagePipeline::ImagePipeline(const ImageTransforms& transforms, const ImagePipelineOptions& options)
    : options_(options) {
  constexpr int64_t kChannels = 3, kLevels = 256;
  const torch::NoGradGuard no_grad;
  torch::Tensor levels = torch::arange(kLevels, torch::kUInt8).expand({kChannels, 1, kLevels});
  bool resized = false, flipped = false, pointwise = false;
  for (const ImageTransform& transform : transforms.all()) {
    if (const auto* geometric = transform.target<GeometricTransform>()) {
      if (geometric->resizes && (resized || flipped || pointwise)) break;
      resized |= geometric->resizes;
      flipped |= geometric->flips;
      steps_.push_back(geometric->step);
    } else if (const auto* values = transform.target<PointwiseTransform>()) {
      if ((values->channels != 0 && values->channels != kChannels) || (values->needs_float && !pointwise)) break;
      levels = values->apply(levels);
      pointwise = true;
    } else {
      break;
    }
    ++fused_;
  }
  if (pointwise) table_ = levels.view({kChannels, kLevels}).contiguous();
  rest_.assign(transforms.all().begin() + fused_, transforms.all().end());
}

absl::StatusOr<torch::Tensor> ImageCollator::Slot(const std::string& name, torch::IntArrayRef sizes,
                                                  const torch::TensorOptions& options) {
  if (added_ == count_)
    return absl::InvalidArgumentError(absl::StrCat(name, ": one image too many; allowed: ", count_));
  if (added_ == 0) {
    std::vector<int64_t> whole(sizes.begin(), sizes.end());
    whole.insert(whole.begin(), count_);
    ASSIGN_OR_RETURN(batch_, RunTorch("batch of images", [&] {
                       return options.device().is_cpu()
                                  ? pipeline_.memory_->Empty(whole, c10::typeMetaToScalarType(options.dtype()))
                                  : torch::empty(whole, options);
                     }));
  }
  if (sizes != batch_.sizes().slice(1) || options.dtype() != batch_.dtype()) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": ", c10::str(sizes), " ", c10::str(options.dtype()), " beside ", c10::str(batch_.sizes().slice(1)), " ",
        c10::str(batch_.dtype()), " in one batch; add a transform that brings all images to one size"));
  }
  return batch_[added_];
}

absl::Status ImageCollator::Render(const std::string& name, const void* bytes, size_t size, const ImageHeader& header,
                                   const ImageGeometry& geometry, torch::Tensor image) {
  const int reduction = pipeline_.options_.reduced_decode ? Reduction(header, geometry) : 1;
  const ImageBox &source = geometry.source(), &window = geometry.window();
  const Side down = PlanSide(source.top, source.height, reduction, geometry.scaled_height(), window.top, window.height);
  const Side across =
      PlanSide(source.left, source.width, reduction, geometry.scaled_width(), window.left, window.width);
  const ImageBox box = {.top = down.first, .left = across.first, .height = down.count, .width = across.count};
  RETURN_IF_ERROR(pixels_.Decode(name, bytes, size, box, reduction));
  const int64_t width = window.width, plane = window.height * width;
  const auto render = [&](const auto& split) {
    ResizePixels(pixels_.rows(), down.count, across.taps, down.taps, geometry.mirrored(), &scratch_, split);
  };
  if (pipeline_.table_.defined()) {
    const float* table = pipeline_.table_.const_data_ptr<float>();
    auto* out = image.data_ptr<float>();
    render([&](int64_t y, const uint8_t* row) {
      SplitPlanes(row, width, table, out + y * width, out + y * width + plane, out + y * width + 2 * plane);
    });
  } else {
    auto* out = image.data_ptr<uint8_t>();
    render([&](int64_t y, const uint8_t* row) {
      SplitPlanes(row, width, out + y * width, out + y * width + plane, out + y * width + 2 * plane);
    });
  }
  return absl::OkStatus();
}

absl::Status ImageCollator::Add(const std::string& name, const void* bytes, size_t size, uint64_t seed) {
  ASSIGN_OR_RETURN(const ImageHeader header, ReadImageHeader(name, bytes, size));
  const torch::NoGradGuard no_grad;
  at::Generator random = at::detail::createCPUGenerator(seed);
  ImageGeometry geometry(header.height, header.width);
  RETURN_IF_ERROR(Annotate(RunTorch("image transforms",
                                    [&] {
                                      for (const GeometryStep& step : pipeline_.steps_) step(geometry, random);
                                    }),
                           name));
  const std::vector<int64_t> sizes = {3, geometry.window().height, geometry.window().width};
  const torch::TensorOptions options = pipeline_.table_.defined() ? torch::kFloat32 : torch::kUInt8;
  if (pipeline_.rest_.empty()) {
    ASSIGN_OR_RETURN(const torch::Tensor slot, Slot(name, sizes, options));
    RETURN_IF_ERROR(Render(name, bytes, size, header, geometry, slot));
  } else {
    torch::Tensor image = torch::empty(sizes, options);
    RETURN_IF_ERROR(Render(name, bytes, size, header, geometry, image));
    RETURN_IF_ERROR(Annotate(RunTorch("image transforms",
                                      [&] {
                                        for (const ImageTransform& transform : pipeline_.rest_)
                                          image = transform(image, random);
                                      }),
                             name));
    ASSIGN_OR_RETURN(const torch::Tensor slot, Slot(name, image.sizes(), image.options()));
    slot.copy_(image);
  }
  ++added_;
  return absl::OkStatus();
}

torch::Tensor ImageCollator::Take() {
  torch::Tensor images;
  if (added_ > 0) images = added_ == count_ ? batch_ : batch_.slice(0, 0, added_);
  batch_ = torch::Tensor();
  added_ = 0;
  return images;
}

}  // namespace athanor
