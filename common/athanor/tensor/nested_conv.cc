#include "athanor/tensor/nested_conv.h"

namespace F = torch::nn::functional;

namespace athanor::nested {
namespace {

using torch::Tensor;

Tensor OrNone(const std::optional<Tensor>& tensor) {
  return tensor.value_or(Tensor());
}

// torch's functions here want a batch dim (some of them only on some sizes): every element is a batch of one.
NestedTensor Spatial(const NestedTensor& x, int64_t rank, const char* name, const TensorFn& fn) {
  TORCH_CHECK_VALUE(rank < 0 || x.structure()->rank() == rank, name, " needs elements of ", rank, " dims, got ",
                    x.structure()->rank());
  return PerElement(x, [&](const Tensor& t) { return fn(t.unsqueeze(0)).squeeze(0); });
}

std::vector<int64_t> Sizes(const std::vector<int64_t>& given, size_t count, const char* what) {
  if (given.size() == 1) return std::vector<int64_t>(count, given[0]);
  TORCH_CHECK_VALUE(given.size() == count, what, " needs 1 or ", count, " numbers, got ", given.size());
  return given;
}

struct Window {
  std::vector<int64_t> kernel, stride, padding, dilation;
};

Window WindowOf(const std::vector<int64_t>& kernel, const PoolOptions& options, size_t count) {
  Window window{Sizes(kernel, count, "kernel"),
                {},
                Sizes(options.padding, count, "padding"),
                Sizes(options.dilation, count, "dilation")};
  window.stride = options.stride.empty() ? window.kernel : Sizes(options.stride, count, "stride");
  return window;
}

}  // namespace

#define ATHANOR_NESTED_CONV(dims, rank)                                                                                \
  NestedTensor conv##dims##d(const NestedTensor& x, const Tensor& weight, const std::optional<Tensor>& bias,           \
                             const ConvOptions& o) {                                                                   \
    return Spatial(x, rank, "conv" #dims "d", [&](const Tensor& t) {                                                   \
      return torch::conv##dims##d(t, weight, OrNone(bias), Sizes(o.stride, dims, "stride"),                            \
                                  Sizes(o.padding, dims, "padding"), Sizes(o.dilation, dims, "dilation"), o.groups);   \
    });                                                                                                                \
  }                                                                                                                    \
  NestedTensor conv_transpose##dims##d(const NestedTensor& x, const Tensor& weight, const std::optional<Tensor>& bias, \
                                       const ConvOptions& o) {                                                         \
    return Spatial(x, rank, "conv_transpose" #dims "d", [&](const Tensor& t) {                                         \
      return torch::conv_transpose##dims##d(                                                                           \
          t, weight, OrNone(bias), Sizes(o.stride, dims, "stride"), Sizes(o.padding, dims, "padding"),                 \
          Sizes(o.output_padding, dims, "output_padding"), o.groups, Sizes(o.dilation, dims, "dilation"));             \
    });                                                                                                                \
  }
ATHANOR_NESTED_CONV(1, 2)
ATHANOR_NESTED_CONV(2, 3)
ATHANOR_NESTED_CONV(3, 4)
#undef ATHANOR_NESTED_CONV

#define ATHANOR_NESTED_MAX_POOL(dims, rank)                                                                         \
  NestedTensor max_pool##dims##d(const NestedTensor& x, const std::vector<int64_t>& kernel, const PoolOptions& o) { \
    const Window w = WindowOf(kernel, o, dims);                                                                     \
    return Spatial(x, rank, "max_pool" #dims "d", [&](const Tensor& t) {                                            \
      return torch::max_pool##dims##d(t, w.kernel, w.stride, w.padding, w.dilation, o.ceil_mode);                   \
    });                                                                                                             \
  }
ATHANOR_NESTED_MAX_POOL(1, 2)
ATHANOR_NESTED_MAX_POOL(2, 3)
ATHANOR_NESTED_MAX_POOL(3, 4)
#undef ATHANOR_NESTED_MAX_POOL

#define ATHANOR_NESTED_AVG_POOL(dims, rank)                                                                         \
  NestedTensor avg_pool##dims##d(const NestedTensor& x, const std::vector<int64_t>& kernel, const PoolOptions& o) { \
    const Window w = WindowOf(kernel, o, dims);                                                                     \
    return Spatial(x, rank, "avg_pool" #dims "d", [&](const Tensor& t) {                                            \
      return torch::avg_pool##dims##d(t, w.kernel, w.stride, w.padding, o.ceil_mode, o.count_include_pad);          \
    });                                                                                                             \
  }
ATHANOR_NESTED_AVG_POOL(1, 2)
ATHANOR_NESTED_AVG_POOL(2, 3)
ATHANOR_NESTED_AVG_POOL(3, 4)
#undef ATHANOR_NESTED_AVG_POOL

NestedTensor lp_pool1d(const NestedTensor& x, double norm, int64_t kernel, const PoolOptions& o) {
  const auto options =
      F::LPPool1dFuncOptions(norm, kernel).stride(o.stride.empty() ? kernel : o.stride[0]).ceil_mode(o.ceil_mode);
  return Spatial(x, 2, "lp_pool1d", [&](const Tensor& t) { return F::lp_pool1d(t, options); });
}

NestedTensor lp_pool2d(const NestedTensor& x, double norm, const std::vector<int64_t>& kernel, const PoolOptions& o) {
  const Window w = WindowOf(kernel, o, 2);
  const auto options = F::LPPool2dFuncOptions(norm, {w.kernel[0], w.kernel[1]})
                           .stride({{w.stride[0], w.stride[1]}})
                           .ceil_mode(o.ceil_mode);
  return Spatial(x, 3, "lp_pool2d", [&](const Tensor& t) { return F::lp_pool2d(t, options); });
}

NestedTensor adaptive_avg_pool1d(const NestedTensor& x, int64_t size) {
  return Spatial(x, 2, "adaptive_avg_pool1d", [&](const Tensor& t) { return torch::adaptive_avg_pool1d(t, size); });
}

NestedTensor adaptive_max_pool1d(const NestedTensor& x, int64_t size) {
  return Spatial(x, 2, "adaptive_max_pool1d",
                 [&](const Tensor& t) { return std::get<0>(torch::adaptive_max_pool1d(t, size)); });
}

NestedTensor adaptive_avg_pool2d(const NestedTensor& x, const std::vector<int64_t>& size) {
  const auto to = Sizes(size, 2, "size");
  return Spatial(x, 3, "adaptive_avg_pool2d", [&](const Tensor& t) { return torch::adaptive_avg_pool2d(t, to); });
}

NestedTensor adaptive_max_pool2d(const NestedTensor& x, const std::vector<int64_t>& size) {
  const auto to = Sizes(size, 2, "size");
  return Spatial(x, 3, "adaptive_max_pool2d",
                 [&](const Tensor& t) { return std::get<0>(torch::adaptive_max_pool2d(t, to)); });
}

NestedTensor adaptive_avg_pool3d(const NestedTensor& x, const std::vector<int64_t>& size) {
  const auto to = Sizes(size, 3, "size");
  return Spatial(x, 4, "adaptive_avg_pool3d", [&](const Tensor& t) { return torch::adaptive_avg_pool3d(t, to); });
}

NestedTensor adaptive_max_pool3d(const NestedTensor& x, const std::vector<int64_t>& size) {
  const auto to = Sizes(size, 3, "size");
  return Spatial(x, 4, "adaptive_max_pool3d",
                 [&](const Tensor& t) { return std::get<0>(torch::adaptive_max_pool3d(t, to)); });
}

NestedTensor pad(const NestedTensor& x, const std::vector<int64_t>& amounts, const std::string& mode, double value) {
  TORCH_CHECK_VALUE(mode == "constant" || mode == "reflect" || mode == "replicate" || mode == "circular",
                    "pad: unknown mode '", mode, "', use constant, reflect, replicate or circular");
  if (mode == "constant") {
    return PerElement(x, [&](const Tensor& t) { return torch::constant_pad_nd(t, amounts, value); });
  }
  return Spatial(x, -1, "pad", [&](const Tensor& t) { return at::pad(t, amounts, mode, value); });
}

NestedTensor interpolate(const NestedTensor& x, const std::vector<int64_t>& size,
                         const std::vector<double>& scale_factor, const std::string& mode,
                         std::optional<bool> align_corners) {
  TORCH_CHECK_VALUE(size.empty() != scale_factor.empty(), "interpolate needs exactly one of size and scale_factor");
  const auto spatial = static_cast<size_t>(x.structure()->rank() - 1);
  F::InterpolateFuncOptions options;
  if (!size.empty()) options.size(Sizes(size, spatial, "size"));
  if (!scale_factor.empty()) {
    TORCH_CHECK_VALUE(scale_factor.size() == 1 || scale_factor.size() == spatial, "scale_factor needs 1 or ", spatial,
                      " numbers, got ", scale_factor.size());
    options.scale_factor(scale_factor.size() == 1 ? std::vector<double>(spatial, scale_factor[0]) : scale_factor);
  }
  if (align_corners) options.align_corners(*align_corners);
  if (mode == "nearest")
    options.mode(torch::kNearest);
  else if (mode == "nearest-exact")
    options.mode(torch::kNearestExact);
  else if (mode == "linear")
    options.mode(torch::kLinear);
  else if (mode == "bilinear")
    options.mode(torch::kBilinear);
  else if (mode == "bicubic")
    options.mode(torch::kBicubic);
  else if (mode == "trilinear")
    options.mode(torch::kTrilinear);
  else if (mode == "area")
    options.mode(torch::kArea);
  else
    TORCH_CHECK_VALUE(false, "interpolate: unknown mode '", mode, "'");
  return Spatial(x, -1, "interpolate", [&](const Tensor& t) { return F::interpolate(t, options); });
}

NestedTensor unfold(const NestedTensor& x, const std::vector<int64_t>& kernel, const ConvOptions& o) {
  return Spatial(x, 3, "unfold", [&](const Tensor& t) {
    return torch::im2col(t, Sizes(kernel, 2, "kernel"), Sizes(o.dilation, 2, "dilation"),
                         Sizes(o.padding, 2, "padding"), Sizes(o.stride, 2, "stride"));
  });
}

NestedTensor fold(const NestedTensor& x, const std::vector<int64_t>& output_size, const std::vector<int64_t>& kernel,
                  const ConvOptions& o) {
  return Spatial(x, 2, "fold", [&](const Tensor& t) {
    return torch::col2im(t, Sizes(output_size, 2, "output_size"), Sizes(kernel, 2, "kernel"),
                         Sizes(o.dilation, 2, "dilation"), Sizes(o.padding, 2, "padding"),
                         Sizes(o.stride, 2, "stride"));
  });
}

NestedTensor pixel_shuffle(const NestedTensor& x, int64_t factor) {
  return Spatial(x, 3, "pixel_shuffle", [&](const Tensor& t) { return torch::pixel_shuffle(t, factor); });
}

NestedTensor pixel_unshuffle(const NestedTensor& x, int64_t factor) {
  return Spatial(x, 3, "pixel_unshuffle", [&](const Tensor& t) { return torch::pixel_unshuffle(t, factor); });
}

NestedTensor channel_shuffle(const NestedTensor& x, int64_t groups) {
  return Spatial(x, -1, "channel_shuffle", [&](const Tensor& t) { return torch::channel_shuffle(t, groups); });
}

NestedTensor grid_sample(const NestedTensor& x, const NestedValue& grid, const std::string& mode,
                         const std::string& padding_mode, bool align_corners) {
  static const std::vector<std::string> kModes = {"bilinear", "nearest", "bicubic"};
  static const std::vector<std::string> kPaddings = {"zeros", "border", "reflection"};
  const auto m = std::find(kModes.begin(), kModes.end(), mode);
  const auto p = std::find(kPaddings.begin(), kPaddings.end(), padding_mode);
  TORCH_CHECK_VALUE(m != kModes.end(), "grid_sample: unknown mode '", mode, "'");
  TORCH_CHECK_VALUE(p != kPaddings.end(), "grid_sample: unknown padding_mode '", padding_mode, "'");
  return PerElement({x, grid}, [&](const std::vector<Tensor>& t) {
    return torch::grid_sampler(t[0].unsqueeze(0), t[1].unsqueeze(0), m - kModes.begin(), p - kPaddings.begin(),
                               align_corners)
        .squeeze(0);
  });
}

}  // namespace athanor::nested
