// Sums (and other reductions) of what several ranks gave, element by element, in the order given: the result does not
// depend on how a message is cut. 16-bit floats are summed in 32 bits and rounded once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <c10/core/ScalarType.h>

#include "absl/status/status.h"

namespace athanor {

enum class Reduction : uint8_t { kSum, kAverage, kProduct, kMin, kMax, kAnd, kOr, kXor };
const char* ToString(Reduction reduction);

// INVALID_ARGUMENT with the reason: averages and bits of types that have none, extremes of complex numbers, float8.
absl::Status CheckReduction(Reduction reduction, c10::ScalarType type);

// out[i] = sources[0][i] (op) sources[1][i] (op) ..., divided by the number of sources for kAverage. `out` may be one
// of the sources. A bool sums like "or" and multiplies like "and". The pair must pass CheckReduction().
void Reduce(Reduction reduction, c10::ScalarType type, void* out, std::span<const void* const> sources, size_t count);

}  // namespace athanor
