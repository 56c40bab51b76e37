// Pointwise operations on NestedTensors: one call on the packed values when all operands have one structure.
//
//   nested::exp(x)            nested::maximum(x, 0.5)            nested::where(x > 2, x, y)            x * y + 1
//
// Names, dtypes and type promotion are those of torch::. Operands are nested tensors, dense tensors and numbers; how
// they broadcast, and which errors there are: Aligned() in nested/pack.h. Where torch wants operands of one dtype
// (heaviside, isclose, lerp), a number takes that of the nested one. Comparisons give bool. At least one operand must
// be nested (c10::TypeError), and they must be on one device; numbers and dense tensors without dims may be on the CPU.
// Differentiable wherever torch's function is.
// In-place forms (add_, mul_ … and += …) write into the packed values, which copies of the tensor share; the other
// operand must not be wider than the target (c10::ValueError).
#pragma once

#include <optional>
#include <string>

#include "athanor/nested/tensor.h"

namespace athanor {
namespace nested {

// clang-format off
#define ATHANOR_NESTED_UNARY(V)                                                                                        \
  V(abs) V(acos) V(acosh) V(angle) V(asin) V(asinh) V(atan) V(atanh) V(bernoulli) V(bitwise_not) V(ceil) V(cos)        \
  V(cosh) V(deg2rad) V(digamma) V(erf) V(erfc) V(erfinv) V(exp) V(exp2) V(expm1) V(floor) V(frac) V(i0) V(isfinite)    \
  V(isinf) V(isnan) V(isneginf) V(isposinf) V(isreal) V(lgamma) V(log) V(log10) V(log1p) V(log2) V(logical_not)        \
  V(neg) V(positive) V(rad2deg) V(reciprocal) V(relu) V(rsqrt) V(sgn) V(sigmoid) V(sign) V(signbit) V(sin) V(sinc)     \
  V(sinh) V(sqrt) V(square) V(tan) V(tanh) V(trunc)
#define ATHANOR_NESTED_BINARY(V) ATHANOR_NESTED_PROMOTING(V) V(heaviside)
// Those that promote the dtypes of their operands.
#define ATHANOR_NESTED_PROMOTING(V)                                                                                    \
  V(atan2) V(bitwise_and) V(bitwise_left_shift) V(bitwise_or) V(bitwise_right_shift) V(bitwise_xor) V(copysign) V(eq)  \
  V(float_power) V(floor_divide) V(fmax) V(fmin) V(fmod) V(gcd) V(ge) V(gt) V(hypot) V(lcm) V(ldexp)                   \
  V(le) V(logaddexp) V(logaddexp2) V(logical_and) V(logical_or) V(logical_xor) V(lt) V(maximum) V(minimum) V(mul)      \
  V(ne) V(nextafter) V(pow) V(remainder) V(true_divide) V(xlogy)
// clang-format on

#define ATHANOR_NESTED_DECLARE(name) NestedTensor name(const NestedTensor& x);
ATHANOR_NESTED_UNARY(ATHANOR_NESTED_DECLARE)
#undef ATHANOR_NESTED_DECLARE
#define ATHANOR_NESTED_DECLARE(name) NestedTensor name(const NestedValue& x, const NestedValue& y);
ATHANOR_NESTED_BINARY(ATHANOR_NESTED_DECLARE)
#undef ATHANOR_NESTED_DECLARE

NestedTensor add(const NestedValue& x, const NestedValue& y, const torch::Scalar& alpha = 1);  // x + alpha * y
NestedTensor sub(const NestedValue& x, const NestedValue& y, const torch::Scalar& alpha = 1);
// `rounding`: absent (true division), "trunc" or "floor".
NestedTensor div(const NestedValue& x, const NestedValue& y, const std::optional<std::string>& rounding = {});
NestedTensor where(const NestedValue& condition, const NestedValue& x, const NestedValue& y);
NestedTensor clamp(const NestedTensor& x, const std::optional<NestedValue>& min,
                   const std::optional<NestedValue>& max = {});
NestedTensor lerp(const NestedValue& x, const NestedValue& end, const NestedValue& weight);
NestedTensor addcmul(const NestedValue& x, const NestedValue& a, const NestedValue& b, const torch::Scalar& value = 1);
NestedTensor addcdiv(const NestedValue& x, const NestedValue& a, const NestedValue& b, const torch::Scalar& value = 1);
NestedTensor masked_fill(const NestedValue& x, const NestedValue& mask, const NestedValue& value);
NestedTensor isclose(const NestedValue& x, const NestedValue& y, double rtol = 1e-5, double atol = 1e-8,
                     bool equal_nan = false);
NestedTensor isin(const NestedTensor& x, const torch::Tensor& test_elements);
NestedTensor logit(const NestedTensor& x, std::optional<double> eps = {});
NestedTensor nan_to_num(const NestedTensor& x, std::optional<double> nan = {}, std::optional<double> posinf = {},
                        std::optional<double> neginf = {});
NestedTensor round(const NestedTensor& x, int64_t decimals = 0);

// Same batch, same shapes and equal (close) values. Never throw for unequal shapes.
bool equal(const NestedTensor& x, const NestedTensor& y);
bool allclose(const NestedTensor& x, const NestedTensor& y, double rtol = 1e-5, double atol = 1e-8,
              bool equal_nan = false);

// Into x.
NestedTensor& add_(NestedTensor& x, const NestedValue& y, const torch::Scalar& alpha = 1);
NestedTensor& sub_(NestedTensor& x, const NestedValue& y, const torch::Scalar& alpha = 1);
NestedTensor& mul_(NestedTensor& x, const NestedValue& y);
NestedTensor& div_(NestedTensor& x, const NestedValue& y);
NestedTensor& floor_divide_(NestedTensor& x, const NestedValue& y);
NestedTensor& remainder_(NestedTensor& x, const NestedValue& y);
NestedTensor& pow_(NestedTensor& x, const NestedValue& y);
NestedTensor& fill_(NestedTensor& x, const torch::Scalar& value);
NestedTensor& zero_(NestedTensor& x);

// New values in the structure of x.
NestedTensor zeros_like(const NestedTensor& x);
NestedTensor ones_like(const NestedTensor& x);
NestedTensor full_like(const NestedTensor& x, const torch::Scalar& value);
NestedTensor empty_like(const NestedTensor& x);
NestedTensor rand_like(const NestedTensor& x);
NestedTensor randn_like(const NestedTensor& x);

}  // namespace nested

#define ATHANOR_NESTED_OPERATOR(symbol, name)                                         \
  inline NestedTensor operator symbol(const NestedTensor& x, const NestedTensor& y) { \
    return nested::name(x, y);                                                        \
  }                                                                                   \
  inline NestedTensor operator symbol(const NestedTensor& x, const NestedValue& y) {  \
    return nested::name(x, y);                                                        \
  }                                                                                   \
  inline NestedTensor operator symbol(const NestedValue& x, const NestedTensor& y) {  \
    return nested::name(x, y);                                                        \
  }
ATHANOR_NESTED_OPERATOR(+, add)
ATHANOR_NESTED_OPERATOR(-, sub)
ATHANOR_NESTED_OPERATOR(*, mul)
ATHANOR_NESTED_OPERATOR(/, div)
ATHANOR_NESTED_OPERATOR(%, remainder)
ATHANOR_NESTED_OPERATOR(&, bitwise_and)
ATHANOR_NESTED_OPERATOR(|, bitwise_or)
ATHANOR_NESTED_OPERATOR(^, bitwise_xor)
ATHANOR_NESTED_OPERATOR(==, eq)
ATHANOR_NESTED_OPERATOR(!=, ne)
ATHANOR_NESTED_OPERATOR(<, lt)
ATHANOR_NESTED_OPERATOR(<=, le)
ATHANOR_NESTED_OPERATOR(>, gt)
ATHANOR_NESTED_OPERATOR(>=, ge)
#undef ATHANOR_NESTED_OPERATOR
inline NestedTensor operator-(const NestedTensor& x) {
  return nested::neg(x);
}
inline NestedTensor operator~(const NestedTensor& x) {
  return nested::bitwise_not(x);
}
inline NestedTensor& operator+=(NestedTensor& x, const NestedValue& y) {
  return nested::add_(x, y);
}
inline NestedTensor& operator-=(NestedTensor& x, const NestedValue& y) {
  return nested::sub_(x, y);
}
inline NestedTensor& operator*=(NestedTensor& x, const NestedValue& y) {
  return nested::mul_(x, y);
}
inline NestedTensor& operator/=(NestedTensor& x, const NestedValue& y) {
  return nested::div_(x, y);
}
inline NestedTensor& operator%=(NestedTensor& x, const NestedValue& y) {
  return nested::remainder_(x, y);
}

}  // namespace athanor
