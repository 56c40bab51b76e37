#include "athanor/torch/fp8_linear.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/_scaled_mm.h>
#ifdef ATHANOR_CUDA
#include <ATen/cuda/CUDAContext.h>
#endif

#include "absl/strings/str_cat.h"

namespace athanor {
namespace {

constexpr int64_t kAlignment = 16;
constexpr double kSmallest = 1e-12;  // of a scale: zeros stay zeros

std::optional<Fp8Recipe>& Current() {
  thread_local std::optional<Fp8Recipe> current;
  return current;
}

struct Quantized {
  torch::Tensor values, scale;
};

double Largest(torch::ScalarType type) {
  return type == torch::kFloat8_e5m2 ? 57344.0 : 448.0;
}

// Rows x columns; with `rowwise` the scale is rows x 1, else one number.
Quantized Quantize(const torch::Tensor& x, torch::ScalarType type, bool rowwise) {
  const double largest = Largest(type);
  const torch::Tensor magnitude = rowwise ? x.abs().amax({1}, /*keepdim=*/true) : x.abs().amax();
  const torch::Tensor scale = magnitude.to(torch::kFloat32).div_(largest).clamp_min_(kSmallest);
  return {(x.to(torch::kFloat32) / scale).clamp_(-largest, largest).to(type), scale};
}

// a (n x k) times b^T (m x k): both row-major along the products' sum, as the kernels want it.
torch::Tensor MultiplyTransposed(const Quantized& a, const Quantized& b, torch::ScalarType out) {
  const bool rowwise = a.scale.dim() > 0;
  // The row-wise kernels of CUDA write bfloat16 only.
  const torch::ScalarType written = rowwise && a.values.is_cuda() ? torch::kBFloat16 : out;
  const torch::Tensor product =
      at::_scaled_mm(a.values.contiguous(), b.values.contiguous().t(), a.scale, rowwise ? b.scale.t() : b.scale,
                     /*bias=*/{}, /*scale_result=*/{}, written);
  return product.to(out);
}

torch::Tensor PadRows(const torch::Tensor& x) {
  const int64_t missing = (kAlignment - x.size(0) % kAlignment) % kAlignment;
  return missing == 0 ? x : torch::constant_pad_nd(x, {0, 0, 0, missing});
}

class Product : public torch::autograd::Function<Product> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const torch::Tensor& x,
                               const torch::Tensor& weight, int64_t recipe, int64_t out) {
    context->saved_data["recipe"] = recipe;
    const bool rowwise = static_cast<Fp8Recipe>(recipe) == Fp8Recipe::kRowwise;
    const Quantized inputs = Quantize(x, torch::kFloat8_e4m3fn, rowwise);
    const Quantized weights = Quantize(weight, torch::kFloat8_e4m3fn, rowwise);
    // With one scale the transposed operand is the same numbers; rows of the other direction need scales of their own.
    if (rowwise) {
      context->save_for_backward({x, weight});
    } else {
      context->save_for_backward({inputs.values, weights.values, inputs.scale, weights.scale});
    }
    context->saved_data["x_type"] = static_cast<int64_t>(x.scalar_type());
    context->saved_data["weight_type"] = static_cast<int64_t>(weight.scalar_type());
    return MultiplyTransposed(inputs, weights, static_cast<torch::ScalarType>(out));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto recipe = static_cast<Fp8Recipe>(context->saved_data["recipe"].toInt());
    const auto x_type = static_cast<torch::ScalarType>(context->saved_data["x_type"].toInt());
    const auto weight_type = static_cast<torch::ScalarType>(context->saved_data["weight_type"].toInt());
    const auto saved = context->get_saved_variables();
    const bool rowwise = recipe == Fp8Recipe::kRowwise;
    const auto type = rowwise ? torch::kFloat8_e4m3fn : torch::kFloat8_e5m2;
    const torch::Tensor& gradient = gradients[0];
    const auto transposed = [&](size_t which) {
      if (rowwise) return Quantize(saved[which].t(), torch::kFloat8_e4m3fn, true);
      return Quantized{saved[which].t(), saved[2 + which]};
    };
    const Quantized along_outputs = Quantize(gradient, type, rowwise);
    const Quantized along_rows =
        rowwise ? Quantize(gradient.t(), type, true) : Quantized{along_outputs.values.t(), along_outputs.scale};
    return {MultiplyTransposed(along_outputs, transposed(1), x_type),
            MultiplyTransposed(along_rows, transposed(0), weight_type), torch::Tensor(), torch::Tensor()};
  }
};

}  // namespace

Fp8Recipe ParseFp8Recipe(const std::string& name) {
  return name == "rowwise" ? Fp8Recipe::kRowwise : Fp8Recipe::kTensorwise;
}

Fp8Scope::Fp8Scope(std::optional<Fp8Recipe> recipe) : before_(Current()) {
  if (recipe.has_value()) Current() = recipe;
}

Fp8Scope::~Fp8Scope() {
  Current() = before_;
}

std::optional<Fp8Recipe> Fp8Scope::current() {
  return Current();
}

absl::Status CheckFp8(const torch::Device& device) {
  std::string found = device.str();
#ifdef ATHANOR_CUDA
  if (device.is_cuda()) {
    const cudaDeviceProp* properties = at::cuda::getDeviceProperties(device.has_index() ? device.index() : 0);
    if (properties->major * 10 + properties->minor >= 89) return absl::OkStatus();
    found = absl::StrCat(properties->name, " with ", properties->major, ".", properties->minor);
  }
#endif
  return absl::InvalidArgumentError(
      absl::StrCat("precision: fp8 needs a CUDA device of compute capability 8.9 or higher; found ", found));
}

torch::Tensor Fp8Product(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias,
                         Fp8Recipe recipe) {
  TORCH_CHECK(weight.dim() == 2 && x.dim() > 0 && x.size(-1) == weight.size(1), "fp8 product: x ", x.sizes(),
              " does not fit weight ", weight.sizes());
  TORCH_CHECK(weight.size(0) % kAlignment == 0 && weight.size(1) % kAlignment == 0, "fp8 product: weight ",
              weight.sizes(), "; both must be multiples of ", kAlignment);
  const c10::DeviceType device = x.device().type();
  const torch::ScalarType out =
      at::autocast::is_autocast_enabled(device) ? at::autocast::get_autocast_dtype(device) : x.scalar_type();
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  const torch::Tensor rows = x.reshape({-1, weight.size(1)});
  torch::Tensor product =
      Product::apply(PadRows(rows), weight, static_cast<int64_t>(recipe), static_cast<int64_t>(out));
  product = product.slice(0, 0, rows.size(0)).reshape(sizes);
  return bias.defined() ? product + bias.to(out) : product;
}

torch::Tensor Fp8LinearImpl::forward(const torch::Tensor& input) {
  const std::optional<Fp8Recipe> recipe = Fp8Scope::current();
  const bool fits = weight.size(0) % kAlignment == 0 && weight.size(1) % kAlignment == 0 && input.numel() > 0;
  if (!recipe.has_value() || !fits) return torch::nn::LinearImpl::forward(input);
  return Fp8Product(input, weight, bias, *recipe);
}

int64_t CountFp8Layers(const torch::nn::Module& model) {
  int64_t count = 0;
  for (const auto& module : model.modules()) {
    const auto* layer = dynamic_cast<const Fp8LinearImpl*>(module.get());
    if (layer != nullptr && layer->weight.size(0) % kAlignment == 0 && layer->weight.size(1) % kAlignment == 0) ++count;
  }
  return count;
}

}  // namespace athanor
