#include "athanor/nested/ops/convolution.h"

#include <algorithm>
#include <functional>
#include <numeric>

namespace F = torch::nn::functional;

namespace athanor::nested {
namespace {

using torch::Tensor;
using Tensors = std::vector<Tensor>;

Tensor OrNone(const std::optional<Tensor>& tensor) {
  return tensor.value_or(Tensor());
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

void CheckRank(const NestedTensor& x, int64_t rank, const char* name) {
  TORCH_CHECK_VALUE(x.structure()->rank() == rank, name, " needs elements of ", rank, " dims, got ",
                    x.structure()->rank());
}

// No element may be empty along a spatial dim, or smaller than the window when there is one.
void CheckFits(const NestedTensor& x, const char* name, const Window* window) {
  for (int64_t b = 0; b < x.len(); ++b) {
    const auto sizes = x.structure()->sizes(b);
    for (size_t d = 1; d < sizes.size(); ++d) {
      TORCH_CHECK_VALUE(sizes[d] > 0, name, ": element ", b, " of shape ", sizes, " has nothing along its dim ", d);
      if (window == nullptr) continue;
      const int64_t reach = window->dilation[d - 1] * (window->kernel[d - 1] - 1) + 1;
      TORCH_CHECK_VALUE(sizes[d] + 2 * window->padding[d - 1] >= reach, name, ": element ", b, " of shape ", sizes,
                        " is smaller along its dim ", d, " than the window of ", reach, " (padding ",
                        window->padding[d - 1], ")");
    }
  }
}

// torch's functions here want a batch dim (some of them only on some sizes): every element is a batch of one.
NestedTensor AsBatchOfOne(const NestedTensor& x, const TensorFn& fn) {
  return PerElement(x, [&](const Tensor& t) { return fn(t.unsqueeze(0)).squeeze(0); });
}

NestedTensor Spatial(const NestedTensor& x, int64_t rank, const char* name, const Window* window, const TensorFn& fn) {
  CheckRank(x, rank, name);
  CheckFits(x, name, window);
  return AsBatchOfOne(x, fn);
}

// Results and the positions that they came from.
template <class Fn>
std::pair<NestedTensor, NestedTensor> WithIndices(const NestedTensor& x, int64_t rank, const char* name,
                                                  const Window* window, const Fn& fn) {
  CheckRank(x, rank, name);
  CheckFits(x, name, window);
  if (x.len() == 0) return {x, x.to(torch::kInt64)};
  const auto columns = EachElement({x}, [&](const std::vector<Tensor>& t) {
    const auto [values, indices] = fn(t[0].unsqueeze(0));
    return std::vector<Tensor>{values.squeeze(0), indices.squeeze(0)};
  });
  return {Repack(columns[0], x), Repack(columns[1], x)};
}

// The check of a convolution's window.
Window ConvWindow(const Tensor& weight, const ConvOptions& o, size_t dims) {
  TORCH_CHECK_VALUE(weight.dim() == static_cast<int64_t>(dims) + 2, "a convolution over ", dims,
                    " dims needs a weight of ", dims + 2, " dims, got ", weight.sizes());
  return {weight.sizes().slice(2).vec(), {}, Sizes(o.padding, dims, "padding"), Sizes(o.dilation, dims, "dilation")};
}

}  // namespace

#define ATHANOR_NESTED_CONV(dims, rank)                                                                                \
  NestedTensor conv##dims##d(const NestedTensor& x, const Tensor& weight, const std::optional<Tensor>& bias,           \
                             const ConvOptions& o) {                                                                   \
    const Window w = ConvWindow(weight, o, dims);                                                                      \
    return Spatial(x, rank, "conv" #dims "d", &w, [&](const Tensor& t) {                                               \
      return torch::conv##dims##d(t, weight, OrNone(bias), Sizes(o.stride, dims, "stride"),                            \
                                  Sizes(o.padding, dims, "padding"), Sizes(o.dilation, dims, "dilation"), o.groups);   \
    });                                                                                                                \
  }                                                                                                                    \
  NestedTensor conv_transpose##dims##d(const NestedTensor& x, const Tensor& weight, const std::optional<Tensor>& bias, \
                                       const ConvOptions& o) {                                                         \
    return Spatial(x, rank, "conv_transpose" #dims "d", nullptr, [&](const Tensor& t) {                                \
      return torch::conv_transpose##dims##d(                                                                           \
          t, weight, OrNone(bias), Sizes(o.stride, dims, "stride"), Sizes(o.padding, dims, "padding"),                 \
          Sizes(o.output_padding, dims, "output_padding"), o.groups, Sizes(o.dilation, dims, "dilation"));             \
    });                                                                                                                \
  }
ATHANOR_NESTED_CONV(1, 2)
ATHANOR_NESTED_CONV(2, 3)
ATHANOR_NESTED_CONV(3, 4)
#undef ATHANOR_NESTED_CONV

// A pool that rounds up may reach beyond an element.
#define ATHANOR_NESTED_MAX_POOL(dims, rank)                                                                         \
  NestedTensor max_pool##dims##d(const NestedTensor& x, const std::vector<int64_t>& kernel, const PoolOptions& o) { \
    const Window w = WindowOf(kernel, o, dims);                                                                     \
    return Spatial(x, rank, "max_pool" #dims "d", o.ceil_mode ? nullptr : &w, [&](const Tensor& t) {                \
      return torch::max_pool##dims##d(t, w.kernel, w.stride, w.padding, w.dilation, o.ceil_mode);                   \
    });                                                                                                             \
  }                                                                                                                 \
  std::pair<NestedTensor, NestedTensor> max_pool##dims##d_with_indices(                                             \
      const NestedTensor& x, const std::vector<int64_t>& kernel, const PoolOptions& o) {                            \
    const Window w = WindowOf(kernel, o, dims);                                                                     \
    return WithIndices(x, rank, "max_pool" #dims "d", o.ceil_mode ? nullptr : &w, [&](const Tensor& t) {            \
      return torch::max_pool##dims##d_with_indices(t, w.kernel, w.stride, w.padding, w.dilation, o.ceil_mode);      \
    });                                                                                                             \
  }
ATHANOR_NESTED_MAX_POOL(1, 2)
ATHANOR_NESTED_MAX_POOL(2, 3)
ATHANOR_NESTED_MAX_POOL(3, 4)
#undef ATHANOR_NESTED_MAX_POOL

#define ATHANOR_NESTED_AVG_POOL(dims, rank)                                                                         \
  NestedTensor avg_pool##dims##d(const NestedTensor& x, const std::vector<int64_t>& kernel, const PoolOptions& o) { \
    const Window w = WindowOf(kernel, o, dims);                                                                     \
    return Spatial(x, rank, "avg_pool" #dims "d", o.ceil_mode ? nullptr : &w, [&](const Tensor& t) {                \
      return torch::avg_pool##dims##d(t, w.kernel, w.stride, w.padding, o.ceil_mode, o.count_include_pad);          \
    });                                                                                                             \
  }
ATHANOR_NESTED_AVG_POOL(1, 2)
ATHANOR_NESTED_AVG_POOL(2, 3)
ATHANOR_NESTED_AVG_POOL(3, 4)
#undef ATHANOR_NESTED_AVG_POOL

namespace {

// Windows of random places, `size` of them or `ratio` times the element's size.
template <class Pool>
std::pair<NestedTensor, NestedTensor> Fractional(const NestedTensor& x, size_t dims, const char* name,
                                                 const std::vector<int64_t>& kernel, const std::vector<int64_t>& size,
                                                 const std::vector<double>& ratio,
                                                 const std::optional<NestedTensor>& samples, const Pool& pool) {
  TORCH_CHECK_VALUE(size.empty() != ratio.empty(), name, " needs exactly one of size and ratio");
  TORCH_CHECK_VALUE(ratio.empty() || ratio.size() == 1 || ratio.size() == dims, name, ": ratio needs 1 or ", dims,
                    " numbers, got ", ratio.size());
  const Window w = WindowOf(kernel, {}, dims);
  CheckRank(x, static_cast<int64_t>(dims) + 1, name);
  CheckFits(x, name, &w);
  if (x.len() == 0) return {x, x.to(torch::kInt64)};
  TORCH_CHECK_VALUE(!samples || samples->len() == x.len(), name, ": random samples of ", samples ? samples->len() : 0,
                    " elements for ", x.len());
  Tensors values, indices;
  const Tensors elements = x.Unbind();
  for (size_t b = 0; b < elements.size(); ++b) {
    std::vector<int64_t> to = size.empty() ? std::vector<int64_t>() : Sizes(size, dims, "size");
    for (size_t d = 0; size.empty() && d < dims; ++d) {
      const auto own = static_cast<double>(elements[b].size(static_cast<int64_t>(d) + 1));
      to.push_back(static_cast<int64_t>(own * ratio[ratio.size() == 1 ? 0 : d]));
    }
    const Tensor random = samples ? samples->Element(static_cast<int64_t>(b))
                                  : torch::rand({elements[b].size(0), static_cast<int64_t>(dims)},
                                                elements[b].options().requires_grad(false));
    const auto [found, where] = pool(elements[b].unsqueeze(0), w.kernel, to, random.unsqueeze(0));
    values.push_back(found.squeeze(0));
    indices.push_back(where.squeeze(0));
  }
  return {Repack(values, x), Repack(indices, x)};
}

// Every value goes to its index in zeros of the size that was pooled.
NestedTensor Unpooled(const NestedTensor& x, const NestedTensor& indices, const Window& w,
                      const std::optional<NestedTensor>& like, const char* name) {
  const size_t dims = w.kernel.size();
  CheckRank(x, static_cast<int64_t>(dims) + 1, name);
  TORCH_CHECK_VALUE(indices.structure()->SameAs(*x.structure()), name, ": values of shape ",
                    torch::IntArrayRef(x.shape()), " and indices of shape ", torch::IntArrayRef(indices.shape()),
                    " differ");
  TORCH_CHECK_VALUE(!like || (like->len() == x.len() && like->structure()->rank() == x.structure()->rank()), name,
                    ": `like` must have as many elements and dims as the input");
  Tensors results;
  const Tensors values = x.Unbind(), places = indices.Unbind();
  for (size_t b = 0; b < values.size(); ++b) {
    std::vector<int64_t> sizes = {values[b].size(0)};
    for (size_t d = 0; d < dims; ++d) {
      const int64_t small = (values[b].size(static_cast<int64_t>(d) + 1) - 1) * w.stride[d] - 2 * w.padding[d];
      sizes.push_back(like ? like->structure()->sizes(static_cast<int64_t>(b))[d + 1] : small + w.kernel[d]);
    }
    const Tensor flat = torch::zeros({sizes[0], c10::multiply_integers(sizes.begin() + 1, sizes.end())},
                                     values[b].options().requires_grad(false));
    results.push_back(flat.scatter(1, places[b].flatten(1), values[b].flatten(1)).reshape(sizes));
  }
  return Repack(results, x);
}

Window LpWindow(const std::vector<int64_t>& kernel, const PoolOptions& o, size_t dims) {
  PoolOptions plain = o;  // torch's lp pools neither pad nor dilate
  plain.padding = {0};
  plain.dilation = {1};
  return WindowOf(kernel, plain, dims);
}

}  // namespace

NestedTensor lp_pool1d(const NestedTensor& x, double norm, int64_t kernel, const PoolOptions& o) {
  const Window w = LpWindow({kernel}, o, 1);
  const auto options = F::LPPool1dFuncOptions(norm, kernel).stride(w.stride[0]).ceil_mode(o.ceil_mode);
  return Spatial(x, 2, "lp_pool1d", o.ceil_mode ? nullptr : &w,
                 [&](const Tensor& t) { return F::lp_pool1d(t, options); });
}

NestedTensor lp_pool2d(const NestedTensor& x, double norm, const std::vector<int64_t>& kernel, const PoolOptions& o) {
  const Window w = LpWindow(kernel, o, 2);
  const auto options = F::LPPool2dFuncOptions(norm, {w.kernel[0], w.kernel[1]})
                           .stride({{w.stride[0], w.stride[1]}})
                           .ceil_mode(o.ceil_mode);
  return Spatial(x, 3, "lp_pool2d", o.ceil_mode ? nullptr : &w,
                 [&](const Tensor& t) { return F::lp_pool2d(t, options); });
}

NestedTensor lp_pool3d(const NestedTensor& x, double norm, const std::vector<int64_t>& kernel, const PoolOptions& o) {
  const Window w = LpWindow(kernel, o, 3);
  const auto options = F::LPPool3dFuncOptions(norm, {w.kernel[0], w.kernel[1], w.kernel[2]})
                           .stride({{w.stride[0], w.stride[1], w.stride[2]}})
                           .ceil_mode(o.ceil_mode);
  return Spatial(x, 4, "lp_pool3d", o.ceil_mode ? nullptr : &w,
                 [&](const Tensor& t) { return F::lp_pool3d(t, options); });
}

#define ATHANOR_NESTED_UNPOOL(dims)                                                          \
  NestedTensor max_unpool##dims##d(const NestedTensor& x, const NestedTensor& indices,       \
                                   const std::vector<int64_t>& kernel, const PoolOptions& o, \
                                   const std::optional<NestedTensor>& like) {                \
    return Unpooled(x, indices, WindowOf(kernel, o, dims), like, "max_unpool" #dims "d");    \
  }
ATHANOR_NESTED_UNPOOL(1)
ATHANOR_NESTED_UNPOOL(2)
ATHANOR_NESTED_UNPOOL(3)
#undef ATHANOR_NESTED_UNPOOL

NestedTensor adaptive_avg_pool1d(const NestedTensor& x, int64_t size) {
  return Spatial(x, 2, "adaptive_avg_pool1d", nullptr,
                 [&](const Tensor& t) { return torch::adaptive_avg_pool1d(t, size); });
}

NestedTensor adaptive_max_pool1d(const NestedTensor& x, int64_t size) {
  return Spatial(x, 2, "adaptive_max_pool1d", nullptr,
                 [&](const Tensor& t) { return std::get<0>(torch::adaptive_max_pool1d(t, size)); });
}

NestedTensor adaptive_avg_pool2d(const NestedTensor& x, const std::vector<int64_t>& size) {
  const auto to = Sizes(size, 2, "size");
  return Spatial(x, 3, "adaptive_avg_pool2d", nullptr,
                 [&](const Tensor& t) { return torch::adaptive_avg_pool2d(t, to); });
}

NestedTensor adaptive_max_pool2d(const NestedTensor& x, const std::vector<int64_t>& size) {
  const auto to = Sizes(size, 2, "size");
  return Spatial(x, 3, "adaptive_max_pool2d", nullptr,
                 [&](const Tensor& t) { return std::get<0>(torch::adaptive_max_pool2d(t, to)); });
}

NestedTensor adaptive_avg_pool3d(const NestedTensor& x, const std::vector<int64_t>& size) {
  const auto to = Sizes(size, 3, "size");
  return Spatial(x, 4, "adaptive_avg_pool3d", nullptr,
                 [&](const Tensor& t) { return torch::adaptive_avg_pool3d(t, to); });
}

NestedTensor adaptive_max_pool3d(const NestedTensor& x, const std::vector<int64_t>& size) {
  const auto to = Sizes(size, 3, "size");
  return Spatial(x, 4, "adaptive_max_pool3d", nullptr,
                 [&](const Tensor& t) { return std::get<0>(torch::adaptive_max_pool3d(t, to)); });
}

#define ATHANOR_NESTED_ADAPTIVE(dims, rank)                                                                         \
  std::pair<NestedTensor, NestedTensor> adaptive_max_pool##dims##d_with_indices(const NestedTensor& x,              \
                                                                                const std::vector<int64_t>& size) { \
    const auto to = Sizes(size, dims, "size");                                                                      \
    return WithIndices(x, rank, "adaptive_max_pool" #dims "d", nullptr,                                             \
                       [&](const Tensor& t) { return torch::adaptive_max_pool##dims##d(t, to); });                  \
  }
ATHANOR_NESTED_ADAPTIVE(1, 2)
ATHANOR_NESTED_ADAPTIVE(2, 3)
ATHANOR_NESTED_ADAPTIVE(3, 4)
#undef ATHANOR_NESTED_ADAPTIVE

#define ATHANOR_NESTED_FRACTIONAL(dims)                                                                         \
  std::pair<NestedTensor, NestedTensor> fractional_max_pool##dims##d_with_indices(                              \
      const NestedTensor& x, const std::vector<int64_t>& kernel, const std::vector<int64_t>& size,              \
      const std::vector<double>& ratio, const std::optional<NestedTensor>& samples) {                           \
    return Fractional(x, dims, "fractional_max_pool" #dims "d", kernel, size, ratio, samples,                   \
                      [](const Tensor& t, const auto& window, const auto& to, const Tensor& random) {           \
                        return torch::fractional_max_pool##dims##d(t, window, to, random);                      \
                      });                                                                                       \
  }                                                                                                             \
  NestedTensor fractional_max_pool##dims##d(const NestedTensor& x, const std::vector<int64_t>& kernel,          \
                                            const std::vector<int64_t>& size, const std::vector<double>& ratio, \
                                            const std::optional<NestedTensor>& samples) {                       \
    return fractional_max_pool##dims##d_with_indices(x, kernel, size, ratio, samples).first;                    \
  }
ATHANOR_NESTED_FRACTIONAL(2)
ATHANOR_NESTED_FRACTIONAL(3)
#undef ATHANOR_NESTED_FRACTIONAL

NestedTensor pad(const NestedTensor& x, const std::vector<int64_t>& amounts, const std::string& mode, double value) {
  TORCH_CHECK_VALUE(mode == "constant" || mode == "reflect" || mode == "replicate" || mode == "circular",
                    "pad: unknown mode '", mode, "', use constant, reflect, replicate or circular");
  if (mode == "constant") {
    return PerElement(x, [&](const Tensor& t) { return torch::constant_pad_nd(t, amounts, value); });
  }
  return AsBatchOfOne(x, [&](const Tensor& t) { return at::pad(t, amounts, mode, value); });
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
  return Spatial(x, static_cast<int64_t>(spatial) + 1, "interpolate", nullptr,
                 [&](const Tensor& t) { return F::interpolate(t, options); });
}

NestedTensor unfold(const NestedTensor& x, const std::vector<int64_t>& kernel, const ConvOptions& o) {
  return Spatial(x, 3, "unfold", nullptr, [&](const Tensor& t) {
    return torch::im2col(t, Sizes(kernel, 2, "kernel"), Sizes(o.dilation, 2, "dilation"),
                         Sizes(o.padding, 2, "padding"), Sizes(o.stride, 2, "stride"));
  });
}

NestedTensor fold(const NestedTensor& x, const std::vector<int64_t>& output_size, const std::vector<int64_t>& kernel,
                  const ConvOptions& o) {
  return Spatial(x, 2, "fold", nullptr, [&](const Tensor& t) {
    return torch::col2im(t, Sizes(output_size, 2, "output_size"), Sizes(kernel, 2, "kernel"),
                         Sizes(o.dilation, 2, "dilation"), Sizes(o.padding, 2, "padding"),
                         Sizes(o.stride, 2, "stride"));
  });
}

NestedTensor pixel_shuffle(const NestedTensor& x, int64_t factor) {
  return Spatial(x, 3, "pixel_shuffle", nullptr, [&](const Tensor& t) { return torch::pixel_shuffle(t, factor); });
}

NestedTensor pixel_unshuffle(const NestedTensor& x, int64_t factor) {
  return Spatial(x, 3, "pixel_unshuffle", nullptr, [&](const Tensor& t) { return torch::pixel_unshuffle(t, factor); });
}

NestedTensor channel_shuffle(const NestedTensor& x, int64_t groups) {
  return AsBatchOfOne(x, [&](const Tensor& t) { return torch::channel_shuffle(t, groups); });
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

NestedTensor affine_grid(const NestedTensor& theta, const NestedTensor& like, bool align_corners) {
  TORCH_CHECK_VALUE(theta.len() == like.len(), "affine_grid: ", theta.len(), " transforms for ", like.len(),
                    " elements");
  const int64_t spatial = like.structure()->rank() - 1;
  TORCH_CHECK_VALUE(spatial == 2 || spatial == 3, "affine_grid needs elements C x H x W or C x D x H x W, got rank ",
                    spatial + 1);
  Tensors grids;
  const Tensors transforms = theta.Unbind();
  for (size_t b = 0; b < transforms.size(); ++b) {
    TORCH_CHECK_VALUE(transforms[b].sizes() == torch::IntArrayRef({spatial, spatial + 1}), "affine_grid: element ", b,
                      " needs a transform of ", spatial, " x ", spatial + 1, ", got ", transforms[b].sizes());
    std::vector<int64_t> size = {1};
    const auto own = like.structure()->sizes(static_cast<int64_t>(b));
    size.insert(size.end(), own.begin(), own.end());
    grids.push_back(torch::affine_grid_generator(transforms[b].unsqueeze(0), size, align_corners).squeeze(0));
  }
  return Repack(grids, theta);
}

}  // namespace athanor::nested
