// Convolutions, pools and what else moves along the sizes of elements: as torch's function on each element alone, so
// that padding never leaks into a result. Elements are C x L, C x H x W or C x D x H x W; each may have its own sizes.
//
//   NestedTensor y = nested::conv1d(x, weight, bias, {.padding = {1}});       // elements C x L -> out x L
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "athanor/tensor/nested_pack.h"

namespace athanor::nested {

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

struct PoolOptions {
  std::vector<int64_t> stride = {};  // absent: the kernel's size
  std::vector<int64_t> padding = {0}, dilation = {1};
  bool ceil_mode = false;
  bool count_include_pad = true;  // average pools
};
NestedTensor max_pool1d(const NestedTensor& x, const std::vector<int64_t>& kernel, const PoolOptions& options = {});
NestedTensor max_pool2d(const NestedTensor& x, const std::vector<int64_t>& kernel, const PoolOptions& options = {});
NestedTensor max_pool3d(const NestedTensor& x, const std::vector<int64_t>& kernel, const PoolOptions& options = {});
NestedTensor avg_pool1d(const NestedTensor& x, const std::vector<int64_t>& kernel, const PoolOptions& options = {});
NestedTensor avg_pool2d(const NestedTensor& x, const std::vector<int64_t>& kernel, const PoolOptions& options = {});
NestedTensor avg_pool3d(const NestedTensor& x, const std::vector<int64_t>& kernel, const PoolOptions& options = {});
NestedTensor lp_pool1d(const NestedTensor& x, double norm, int64_t kernel, const PoolOptions& options = {});
NestedTensor lp_pool2d(const NestedTensor& x, double norm, const std::vector<int64_t>& kernel,
                       const PoolOptions& options = {});
NestedTensor adaptive_avg_pool1d(const NestedTensor& x, int64_t size);
NestedTensor adaptive_avg_pool2d(const NestedTensor& x, const std::vector<int64_t>& size);
NestedTensor adaptive_avg_pool3d(const NestedTensor& x, const std::vector<int64_t>& size);
NestedTensor adaptive_max_pool1d(const NestedTensor& x, int64_t size);
NestedTensor adaptive_max_pool2d(const NestedTensor& x, const std::vector<int64_t>& size);
NestedTensor adaptive_max_pool3d(const NestedTensor& x, const std::vector<int64_t>& size);

// `amounts` from the last dim on, as torch's: {left, right, top, bottom, …}. mode: constant, reflect, replicate,
// circular.
NestedTensor pad(const NestedTensor& x, const std::vector<int64_t>& amounts, const std::string& mode = "constant",
                 double value = 0);
// Exactly one of `size` and `scale_factor`. mode: nearest, nearest-exact, linear, bilinear, bicubic, trilinear, area.
NestedTensor interpolate(const NestedTensor& x, const std::vector<int64_t>& size,
                         const std::vector<double>& scale_factor = {}, const std::string& mode = "nearest",
                         std::optional<bool> align_corners = {});
NestedTensor unfold(const NestedTensor& x, const std::vector<int64_t>& kernel, const ConvOptions& options = {});
NestedTensor fold(const NestedTensor& x, const std::vector<int64_t>& output_size, const std::vector<int64_t>& kernel,
                  const ConvOptions& options = {});
NestedTensor pixel_shuffle(const NestedTensor& x, int64_t factor);
NestedTensor pixel_unshuffle(const NestedTensor& x, int64_t factor);
NestedTensor channel_shuffle(const NestedTensor& x, int64_t groups);
NestedTensor grid_sample(const NestedTensor& x, const NestedValue& grid, const std::string& mode = "bilinear",
                         const std::string& padding_mode = "zeros", bool align_corners = false);

}  // namespace athanor::nested
