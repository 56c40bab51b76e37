// Convolutions, pools and what else moves along the sizes of elements: as torch's function on each element alone, so
// that padding never leaks into a result. Elements are C x L, C x H x W or C x D x H x W; each may have its own sizes.
//
//   NestedTensor y = nested::conv1d(x, weight, bias, {.padding = {1}});       // elements C x L -> out x L
//   auto [pooled, places] = nested::max_pool1d_with_indices(y, {2});          // out x L / 2, places int64
//   NestedTensor back = nested::max_unpool1d(pooled, places, {2}, {}, y);     // zeros but at the maxima
//
// dtypes are those of torch's functions (floating); results are nested, also when all elements end up with one shape.
// c10::ValueError: elements of another rank than the function's; options that do not have one number or one for each
// spatial dim; an element that has nothing along a spatial dim, or is smaller than the window (dilation * (kernel - 1)
// + 1 > size + 2 * padding), naming the element. Channel counts that do not fit a weight are torch's own c10::Error.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "athanor/nested/pack.h"

namespace athanor::nested {

// ---- convolutions: weight out x C / groups x kernel…, bias out ----
// C x L… -> out x (L + 2 padding - dilation (kernel - 1) - 1) / stride + 1, rounded down. Transposed: weight C x out /
// groups x kernel…, -> out x (L - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1.
// One number stands for all spatial dims.
struct ConvOptions {
  std::vector<int64_t> stride = {1}, padding = {0}, dilation = {1};
  int64_t groups = 1;
  std::vector<int64_t> output_padding = {0};  // transposed convolutions only
};
NestedTensor conv1d(const NestedTensor& x, const torch::Tensor& weight, const std::optional<torch::Tensor>& bias = {},
                    const ConvOptions& options = {});
NestedTensor conv2d(const NestedTensor& x, const torch::Tensor& weight, const std::optional<torch::Tensor>& bias = {},
                    const ConvOptions& options = {});
NestedTensor conv3d(const NestedTensor& x, const torch::Tensor& weight, const std::optional<torch::Tensor>& bias = {},
                    const ConvOptions& options = {});
NestedTensor conv_transpose1d(const NestedTensor& x, const torch::Tensor& weight,
                              const std::optional<torch::Tensor>& bias = {}, const ConvOptions& options = {});
NestedTensor conv_transpose2d(const NestedTensor& x, const torch::Tensor& weight,
                              const std::optional<torch::Tensor>& bias = {}, const ConvOptions& options = {});
NestedTensor conv_transpose3d(const NestedTensor& x, const torch::Tensor& weight,
                              const std::optional<torch::Tensor>& bias = {}, const ConvOptions& options = {});

// ---- pools: channels alone; the size becomes (L + 2 padding - dilation (kernel - 1) - 1) / stride + 1 ----
struct PoolOptions {
  std::vector<int64_t> stride = {};  // absent: the kernel's size
  std::vector<int64_t> padding = {0}, dilation = {1};
  bool ceil_mode = false;
  bool count_include_pad = true;  // average pools
};
NestedTensor max_pool1d(const NestedTensor& x, const std::vector<int64_t>& kernel, const PoolOptions& options = {});
NestedTensor max_pool2d(const NestedTensor& x, const std::vector<int64_t>& kernel, const PoolOptions& options = {});
NestedTensor max_pool3d(const NestedTensor& x, const std::vector<int64_t>& kernel, const PoolOptions& options = {});
// And the positions of the maxima (int64), counted within a channel's L, H x W or D x H x W.
using WithPositions = std::pair<NestedTensor, NestedTensor>;
WithPositions max_pool1d_with_indices(const NestedTensor& x, const std::vector<int64_t>& kernel,
                                      const PoolOptions& options = {});
WithPositions max_pool2d_with_indices(const NestedTensor& x, const std::vector<int64_t>& kernel,
                                      const PoolOptions& options = {});
WithPositions max_pool3d_with_indices(const NestedTensor& x, const std::vector<int64_t>& kernel,
                                      const PoolOptions& options = {});
// The values at their positions in zeros of the sizes of `like`'s elements (what was pooled), or, without, of the
// smallest size that the pool makes so much of. Values and positions have equal shapes (c10::ValueError); a position
// outside is torch's c10::Error.
NestedTensor max_unpool1d(const NestedTensor& x, const NestedTensor& indices, const std::vector<int64_t>& kernel,
                          const PoolOptions& options = {}, const std::optional<NestedTensor>& like = {});
NestedTensor max_unpool2d(const NestedTensor& x, const NestedTensor& indices, const std::vector<int64_t>& kernel,
                          const PoolOptions& options = {}, const std::optional<NestedTensor>& like = {});
NestedTensor max_unpool3d(const NestedTensor& x, const NestedTensor& indices, const std::vector<int64_t>& kernel,
                          const PoolOptions& options = {}, const std::optional<NestedTensor>& like = {});
// Windows at random places. Exactly one of `size` (the result's, for all elements) and `ratio` (of each element's own,
// in 0..1). `samples`: elements C x dims of numbers in 0..1 instead of random ones.
NestedTensor fractional_max_pool2d(const NestedTensor& x, const std::vector<int64_t>& kernel,
                                   const std::vector<int64_t>& size, const std::vector<double>& ratio = {},
                                   const std::optional<NestedTensor>& samples = {});
NestedTensor fractional_max_pool3d(const NestedTensor& x, const std::vector<int64_t>& kernel,
                                   const std::vector<int64_t>& size, const std::vector<double>& ratio = {},
                                   const std::optional<NestedTensor>& samples = {});
WithPositions fractional_max_pool2d_with_indices(const NestedTensor& x, const std::vector<int64_t>& kernel,
                                                 const std::vector<int64_t>& size,
                                                 const std::vector<double>& ratio = {},
                                                 const std::optional<NestedTensor>& samples = {});
WithPositions fractional_max_pool3d_with_indices(const NestedTensor& x, const std::vector<int64_t>& kernel,
                                                 const std::vector<int64_t>& size,
                                                 const std::vector<double>& ratio = {},
                                                 const std::optional<NestedTensor>& samples = {});
NestedTensor avg_pool1d(const NestedTensor& x, const std::vector<int64_t>& kernel, const PoolOptions& options = {});
NestedTensor avg_pool2d(const NestedTensor& x, const std::vector<int64_t>& kernel, const PoolOptions& options = {});
NestedTensor avg_pool3d(const NestedTensor& x, const std::vector<int64_t>& kernel, const PoolOptions& options = {});
// (sum of x^norm over the window)^(1 / norm); of the options stride and ceil_mode. norm 0 gives NaN or infinity.
NestedTensor lp_pool1d(const NestedTensor& x, double norm, int64_t kernel, const PoolOptions& options = {});
NestedTensor lp_pool2d(const NestedTensor& x, double norm, const std::vector<int64_t>& kernel,
                       const PoolOptions& options = {});
NestedTensor lp_pool3d(const NestedTensor& x, double norm, const std::vector<int64_t>& kernel,
                       const PoolOptions& options = {});
// C x … -> C x size.
NestedTensor adaptive_avg_pool1d(const NestedTensor& x, int64_t size);
NestedTensor adaptive_avg_pool2d(const NestedTensor& x, const std::vector<int64_t>& size);
NestedTensor adaptive_avg_pool3d(const NestedTensor& x, const std::vector<int64_t>& size);
NestedTensor adaptive_max_pool1d(const NestedTensor& x, int64_t size);
NestedTensor adaptive_max_pool2d(const NestedTensor& x, const std::vector<int64_t>& size);
NestedTensor adaptive_max_pool3d(const NestedTensor& x, const std::vector<int64_t>& size);
WithPositions adaptive_max_pool1d_with_indices(const NestedTensor& x, const std::vector<int64_t>& size);
WithPositions adaptive_max_pool2d_with_indices(const NestedTensor& x, const std::vector<int64_t>& size);
WithPositions adaptive_max_pool3d_with_indices(const NestedTensor& x, const std::vector<int64_t>& size);

// ---- sizes ----
// `amounts` from the last dim on, as torch's: {left, right, top, bottom, …}. mode: constant (elements of any rank, also
// empty ones), reflect, replicate, circular (the last spatial dims); else c10::ValueError.
NestedTensor pad(const NestedTensor& x, const std::vector<int64_t>& amounts, const std::string& mode = "constant",
                 double value = 0);
// Exactly one of `size` and `scale_factor` (c10::ValueError). mode: nearest, nearest-exact, linear (C x L), bilinear,
// bicubic (C x H x W), trilinear (C x D x H x W), area.
NestedTensor interpolate(const NestedTensor& x, const std::vector<int64_t>& size,
                         const std::vector<double>& scale_factor = {}, const std::string& mode = "nearest",
                         std::optional<bool> align_corners = {});
// C x H x W -> C * kernel area x windows, and back (what overlaps adds up). Of the options all but groups.
NestedTensor unfold(const NestedTensor& x, const std::vector<int64_t>& kernel, const ConvOptions& options = {});
NestedTensor fold(const NestedTensor& x, const std::vector<int64_t>& output_size, const std::vector<int64_t>& kernel,
                  const ConvOptions& options = {});
NestedTensor pixel_shuffle(const NestedTensor& x, int64_t factor);    // C f^2 x H x W -> C x H f x W f
NestedTensor pixel_unshuffle(const NestedTensor& x, int64_t factor);  // C x H f x W f -> C f^2 x H x W
NestedTensor channel_shuffle(const NestedTensor& x, int64_t groups);  // C x …, same shape

// ---- sampling ----
// x: C x H x W (or C x D x H x W); grid: elements (or one dense for all) h x w x 2 (d x h x w x 3) of positions in
// -1..1 -> C x h x w. mode: bilinear, nearest, bicubic; padding_mode: zeros, border, reflection; else c10::ValueError.
NestedTensor grid_sample(const NestedTensor& x, const NestedValue& grid, const std::string& mode = "bilinear",
                         const std::string& padding_mode = "zeros", bool align_corners = false);
// The grid of each element of `like` (C x H x W or C x D x H x W) under its transform in `theta`, 2 x 3 (3 x 4) ->
// H x W x 2 (D x H x W x 3). c10::ValueError for other shapes.
NestedTensor affine_grid(const NestedTensor& theta, const NestedTensor& like, bool align_corners = false);

}  // namespace athanor::nested
