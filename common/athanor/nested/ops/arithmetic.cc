#include "athanor/nested/ops/arithmetic.h"

#include <algorithm>
#include <string_view>

#include "athanor/nested/pack.h"

namespace athanor::nested {
namespace {

using torch::Tensor;
using Tensors = std::vector<Tensor>;

template <class Fn>
NestedTensor Binary(const NestedValue& x, const NestedValue& y, const Fn& fn) {
  return Aligned({x, y}, [&](const Tensors& t) { return fn(t[0], t[1]); });
}

// Those whose kernels want both operands on the device.
bool WantsBothOnDevice(std::string_view name) {
  static constexpr std::string_view kNames[] = {"gcd",         "lcm",        "logaddexp",   "logaddexp2",
                                                "logical_and", "logical_or", "logical_xor", "nextafter"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

// The other operand's values where x's are, for writing into x.
template <class Fn>
NestedTensor& InPlace(NestedTensor& x, const NestedValue& y, const Fn& fn) {
  if (y.is_nested()) {
    TORCH_CHECK_VALUE(y.nested().structure()->SameAs(*x.structure()),
                      "In place, both NestedTensors must have the same shapes: ", torch::IntArrayRef(x.shape()),
                      " and ", torch::IntArrayRef(y.nested().shape()));
  }
  const auto dense = y.is_nested() ? std::optional<Tensor>(y.nested().values()) : AlignDense(x, y.dense());
  TORCH_CHECK_VALUE(dense && at::is_expandable_to(dense->sizes(), x.values().sizes()),
                    "Cannot combine a NestedTensor of shape ", torch::IntArrayRef(x.shape()),
                    " in place with a tensor of shape ", y.dense().sizes());
  Tensor values = x.values();
  fn(values, *dense);
  x = x.WithValues(values);
  return x;
}

}  // namespace

#define ATHANOR_NESTED_DEFINE(name)                                   \
  NestedTensor name(const NestedTensor& x) {                          \
    return Packed(x, [](const Tensor& t) { return torch::name(t); }); \
  }
ATHANOR_NESTED_UNARY(ATHANOR_NESTED_DEFINE)
#undef ATHANOR_NESTED_DEFINE
#define ATHANOR_NESTED_DEFINE(name)                                                 \
  NestedTensor name(const NestedValue& x, const NestedValue& y) {                   \
    static const bool both = WantsBothOnDevice(#name);                              \
    return Aligned(both ? NumbersOnDevice({x, y}) : std::vector<NestedValue>{x, y}, \
                   [](const Tensors& t) { return torch::name(t[0], t[1]); });       \
  }
ATHANOR_NESTED_PROMOTING(ATHANOR_NESTED_DEFINE)
#undef ATHANOR_NESTED_DEFINE

NestedTensor heaviside(const NestedValue& x, const NestedValue& y) {
  return Aligned(NumbersAlike({x, y}), [](const Tensors& t) { return torch::heaviside(t[0], t[1]); });
}

NestedTensor add(const NestedValue& x, const NestedValue& y, const torch::Scalar& alpha) {
  return Binary(x, y, [&](const Tensor& a, const Tensor& b) { return torch::add(a, b, alpha); });
}

NestedTensor sub(const NestedValue& x, const NestedValue& y, const torch::Scalar& alpha) {
  return Binary(x, y, [&](const Tensor& a, const Tensor& b) { return torch::sub(a, b, alpha); });
}

NestedTensor div(const NestedValue& x, const NestedValue& y, const std::optional<std::string>& rounding) {
  std::optional<std::string_view> mode;
  if (rounding) mode = *rounding;
  return Binary(x, y, [&](const Tensor& a, const Tensor& b) { return torch::div(a, b, mode); });
}

NestedTensor where(const NestedValue& condition, const NestedValue& x, const NestedValue& y) {
  return Aligned({condition, x, y}, [](const Tensors& t) { return torch::where(t[0], t[1], t[2]); });
}

NestedTensor clamp(const NestedTensor& x, const std::optional<NestedValue>& min,
                   const std::optional<NestedValue>& max) {
  TORCH_CHECK_VALUE(min || max, "clamp needs `min` or `max`");
  const auto number = [](const std::optional<NestedValue>& bound) {
    return bound && IsNumber(*bound) ? std::optional<torch::Scalar>(bound->dense().item()) : std::nullopt;
  };
  const auto low = number(min), high = number(max);
  if ((low || !min) && (high || !max)) return Packed(x, [&](const Tensor& t) { return torch::clamp(t, low, high); });
  if (!max) return Binary(x, *min, [](const Tensor& a, const Tensor& b) { return torch::clamp_min(a, b); });
  if (!min) return Binary(x, *max, [](const Tensor& a, const Tensor& b) { return torch::clamp_max(a, b); });
  return Aligned({x, *min, *max}, [](const Tensors& t) { return torch::clamp(t[0], t[1], t[2]); });
}

NestedTensor lerp(const NestedValue& x, const NestedValue& end, const NestedValue& weight) {
  if (IsNumber(weight) && (x.is_nested() || end.is_nested())) {
    const torch::Scalar by = weight.dense().item();
    return Aligned(NumbersAlike({x, end}), [&](const Tensors& t) { return torch::lerp(t[0], t[1], by); });
  }
  return Aligned(NumbersAlike({x, end, weight}), [](const Tensors& t) { return torch::lerp(t[0], t[1], t[2]); });
}

NestedTensor addcmul(const NestedValue& x, const NestedValue& a, const NestedValue& b, const torch::Scalar& value) {
  return Aligned({x, a, b}, [&](const Tensors& t) { return torch::addcmul(t[0], t[1], t[2], value); });
}

NestedTensor addcdiv(const NestedValue& x, const NestedValue& a, const NestedValue& b, const torch::Scalar& value) {
  return Aligned({x, a, b}, [&](const Tensors& t) { return torch::addcdiv(t[0], t[1], t[2], value); });
}

NestedTensor masked_fill(const NestedValue& x, const NestedValue& mask, const NestedValue& value) {
  if (!value.is_nested() && value.dense().dim() == 0 && value.dense().is_cpu() && !value.dense().requires_grad()) {
    const torch::Scalar number = value.dense().item();
    return Aligned({x, mask}, [&](const Tensors& t) { return torch::masked_fill(t[0], t[1], number); });
  }
  return Aligned({x, mask, value},
                 [](const Tensors& t) { return torch::where(t[1], t[2].to(t[0].scalar_type()), t[0]); });
}

NestedTensor isclose(const NestedValue& x, const NestedValue& y, double rtol, double atol, bool equal_nan) {
  return Aligned(NumbersAlike({x, y}),
                 [&](const Tensors& t) { return torch::isclose(t[0], t[1], rtol, atol, equal_nan); });
}

NestedTensor isin(const NestedTensor& x, const torch::Tensor& test_elements) {
  return Packed(x, [&](const Tensor& t) { return torch::isin(t, test_elements); });
}

NestedTensor logit(const NestedTensor& x, std::optional<double> eps) {
  return Packed(x, [&](const Tensor& t) { return torch::logit(t, eps); });
}

NestedTensor nan_to_num(const NestedTensor& x, std::optional<double> nan, std::optional<double> posinf,
                        std::optional<double> neginf) {
  return Packed(x, [&](const Tensor& t) { return torch::nan_to_num(t, nan, posinf, neginf); });
}

NestedTensor round(const NestedTensor& x, int64_t decimals) {
  return Packed(x, [&](const Tensor& t) { return decimals == 0 ? torch::round(t) : torch::round(t, decimals); });
}

bool equal(const NestedTensor& x, const NestedTensor& y) {
  return x.structure()->SameAs(*y.structure()) && torch::equal(x.values(), y.values());
}

bool allclose(const NestedTensor& x, const NestedTensor& y, double rtol, double atol, bool equal_nan) {
  return x.structure()->SameAs(*y.structure()) && torch::allclose(x.values(), y.values(), rtol, atol, equal_nan);
}

NestedTensor& add_(NestedTensor& x, const NestedValue& y, const torch::Scalar& alpha) {
  return InPlace(x, y, [&](Tensor& a, const Tensor& b) { a.add_(b, alpha); });
}

NestedTensor& sub_(NestedTensor& x, const NestedValue& y, const torch::Scalar& alpha) {
  return InPlace(x, y, [&](Tensor& a, const Tensor& b) { a.sub_(b, alpha); });
}

#define ATHANOR_NESTED_DEFINE(name)                                      \
  NestedTensor& name(NestedTensor& x, const NestedValue& y) {            \
    return InPlace(x, y, [](Tensor& a, const Tensor& b) { a.name(b); }); \
  }
ATHANOR_NESTED_DEFINE(mul_)
ATHANOR_NESTED_DEFINE(div_)
ATHANOR_NESTED_DEFINE(floor_divide_)
ATHANOR_NESTED_DEFINE(remainder_)
ATHANOR_NESTED_DEFINE(pow_)
#undef ATHANOR_NESTED_DEFINE

NestedTensor& fill_(NestedTensor& x, const torch::Scalar& value) {
  return InPlace(x, NestedValue(value), [&](Tensor& a, const Tensor&) { a.fill_(value); });
}

NestedTensor& zero_(NestedTensor& x) {
  return fill_(x, 0);
}

#define ATHANOR_NESTED_DEFINE(name)               \
  NestedTensor name(const NestedTensor& x) {      \
    return x.WithValues(torch::name(x.values())); \
  }
ATHANOR_NESTED_DEFINE(zeros_like)
ATHANOR_NESTED_DEFINE(ones_like)
ATHANOR_NESTED_DEFINE(empty_like)
ATHANOR_NESTED_DEFINE(rand_like)
ATHANOR_NESTED_DEFINE(randn_like)
#undef ATHANOR_NESTED_DEFINE

NestedTensor full_like(const NestedTensor& x, const torch::Scalar& value) {
  return x.WithValues(torch::full_like(x.values(), value));
}

}  // namespace athanor::nested
