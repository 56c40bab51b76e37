#include "athanor/parallel/transport/reduction.h"

#include <algorithm>
#include <type_traits>

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "absl/strings/str_cat.h"

namespace athanor {
namespace {

constexpr size_t kChunk = 1024;  // elements that are accumulated before they are written: `out` may be a source

struct Sum {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(a + b);
  }
};
struct Product {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(a * b);
  }
};
// As torch's: a NaN on either side is the result.
struct Min {
  template <typename T>
  T operator()(T a, T b) const {
    return a != a || a < b ? a : b;
  }
};
struct Max {
  template <typename T>
  T operator()(T a, T b) const {
    return a != a || a > b ? a : b;
  }
};
struct And {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(a & b);
  }
};
struct Or {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(a | b);
  }
};
struct Xor {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(a ^ b);
  }
};

// T: as stored; A: as accumulated.
template <typename T, typename A, typename Op>
void Fold(T* out, std::span<const void* const> sources, size_t count, Op op, A divisor) {
  A sums[kChunk];
  for (size_t begin = 0; begin < count; begin += kChunk) {
    const size_t n = std::min(kChunk, count - begin);
    const T* first = static_cast<const T*>(sources[0]) + begin;
    for (size_t i = 0; i < n; ++i) sums[i] = static_cast<A>(first[i]);
    for (size_t r = 1; r < sources.size(); ++r) {
      const T* next = static_cast<const T*>(sources[r]) + begin;
      for (size_t i = 0; i < n; ++i) sums[i] = op(sums[i], static_cast<A>(next[i]));
    }
    if (divisor != A(1)) {
      for (size_t i = 0; i < n; ++i) sums[i] /= divisor;
    }
    for (size_t i = 0; i < n; ++i) out[begin + i] = static_cast<T>(sums[i]);
  }
}

template <typename T, typename A>
void FoldFloat(Reduction reduction, void* out, std::span<const void* const> sources, size_t count) {
  T* to = static_cast<T*>(out);
  switch (reduction) {
    case Reduction::kProduct:
      return Fold<T, A>(to, sources, count, Product(), A(1));
    case Reduction::kMin:
      return Fold<T, A>(to, sources, count, Min(), A(1));
    case Reduction::kMax:
      return Fold<T, A>(to, sources, count, Max(), A(1));
    case Reduction::kAverage:
      return Fold<T, A>(to, sources, count, Sum(), static_cast<A>(sources.size()));
    default:
      return Fold<T, A>(to, sources, count, Sum(), A(1));
  }
}

template <typename T>
void FoldInteger(Reduction reduction, void* out, std::span<const void* const> sources, size_t count) {
  // Sums of signed numbers wrap as torch's do, without undefined behaviour.
  using Wrapping = std::make_unsigned_t<T>;
  T* to = static_cast<T*>(out);
  Wrapping* wrapped = static_cast<Wrapping*>(out);
  switch (reduction) {
    case Reduction::kProduct:
      return Fold<Wrapping, Wrapping>(wrapped, sources, count, Product(), Wrapping(1));
    case Reduction::kMin:
      return Fold<T, T>(to, sources, count, Min(), T(1));
    case Reduction::kMax:
      return Fold<T, T>(to, sources, count, Max(), T(1));
    case Reduction::kAnd:
      return Fold<T, T>(to, sources, count, And(), T(1));
    case Reduction::kOr:
      return Fold<T, T>(to, sources, count, Or(), T(1));
    case Reduction::kXor:
      return Fold<T, T>(to, sources, count, Xor(), T(1));
    default:
      return Fold<Wrapping, Wrapping>(wrapped, sources, count, Sum(), Wrapping(1));
  }
}

Reduction OfBool(Reduction reduction) {
  switch (reduction) {
    case Reduction::kSum:
    case Reduction::kMax:
      return Reduction::kOr;
    case Reduction::kProduct:
    case Reduction::kMin:
      return Reduction::kAnd;
    default:
      return reduction;
  }
}

}  // namespace

const char* ToString(Reduction reduction) {
  switch (reduction) {
    case Reduction::kSum:
      return "sum";
    case Reduction::kAverage:
      return "average";
    case Reduction::kProduct:
      return "product";
    case Reduction::kMin:
      return "min";
    case Reduction::kMax:
      return "max";
    case Reduction::kAnd:
      return "and";
    case Reduction::kOr:
      return "or";
    case Reduction::kXor:
      return "xor";
  }
  return "?";
}

absl::Status CheckReduction(Reduction reduction, c10::ScalarType type) {
  const bool bits = reduction == Reduction::kAnd || reduction == Reduction::kOr || reduction == Reduction::kXor;
  const bool floats = type == c10::kFloat || type == c10::kDouble || type == c10::kHalf || type == c10::kBFloat16;
  const bool integers = type == c10::kLong || type == c10::kInt || type == c10::kShort || type == c10::kChar ||
                        type == c10::kByte || type == c10::kBool;
  const bool complex = type == c10::kComplexFloat || type == c10::kComplexDouble;
  bool known = floats && !bits;
  known = known || (integers && reduction != Reduction::kAverage);
  known = known || (complex && (reduction == Reduction::kSum || reduction == Reduction::kAverage));
  if (known) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the ", ToString(reduction), " of ", c10::toString(type),
                                                 " is not defined here; floats have sum, average, product, min, max; "
                                                 "integers all but average; complex numbers sum and average"));
}

void Reduce(Reduction reduction, c10::ScalarType type, void* out, std::span<const void* const> sources, size_t count) {
  if (type == c10::kBool) reduction = OfBool(reduction);
  switch (type) {
    case c10::kFloat:
      return FoldFloat<float, float>(reduction, out, sources, count);
    case c10::kDouble:
      return FoldFloat<double, double>(reduction, out, sources, count);
    case c10::kHalf:
      return FoldFloat<c10::Half, float>(reduction, out, sources, count);
    case c10::kBFloat16:
      return FoldFloat<c10::BFloat16, float>(reduction, out, sources, count);
    case c10::kComplexFloat:
      return FoldFloat<float, float>(reduction, out, sources, 2 * count);
    case c10::kComplexDouble:
      return FoldFloat<double, double>(reduction, out, sources, 2 * count);
    case c10::kLong:
      return FoldInteger<int64_t>(reduction, out, sources, count);
    case c10::kInt:
      return FoldInteger<int32_t>(reduction, out, sources, count);
    case c10::kShort:
      return FoldInteger<int16_t>(reduction, out, sources, count);
    case c10::kChar:
      return FoldInteger<int8_t>(reduction, out, sources, count);
    default:  // uint8 and bool
      return FoldInteger<uint8_t>(reduction, out, sources, count);
  }
}

}  // namespace athanor
