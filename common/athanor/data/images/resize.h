// Bilinear resizing with antialiasing on pixels of 4 bytes: Image.resize(..., BILINEAR) of Pillow up to 12, bit for bit
// (two passes, columns first, weights of 22 binary places, both results rounded to 8 bits). Any thread.
//
//   const ResampleTaps columns = BilinearTaps(375, 0, 375, 224, 0, 224), rows = BilinearTaps(500, 0, 500, 224, 0, 224);
//   ResizePixels({source, 375 * 4}, 500, columns, rows, /*mirrored=*/false, &scratch,
//                [&](int64_t y, const uint8_t* row) { ... });
//
// Formulas: Pillow, src/libImaging/Resample.c. On x86-64 the loops are there for AVX-512, AVX2 and the baseline; the
// program takes what its processor has, and the result is the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace athanor {

constexpr int64_t kPixelBytes = 4;  // red, green, blue and one byte of any value

struct PixelRows {
  const uint8_t* data = nullptr;
  size_t row_bytes = 0;
};

// Output i is the sum over t < width of weights[i * width + t] / 2^22 of input first[i] + t.
struct ResampleTaps {
  int64_t width = 0;
  std::vector<int32_t> first;  // ascending
  std::vector<int32_t> weights;
  bool identity = false;  // output i is input first[0] + i

  int64_t count() const { return static_cast<int64_t>(first.size()); }
};

// Of outputs [out_first, out_first + count) of the `out_size` that inputs [begin, end) become; there are inputs 0 to
// `in_size` exclusive. Fractions of an input may be left out at both ends, as Pillow's `box` allows.
ResampleTaps BilinearTaps(int64_t in_size, double begin, double end, int64_t out_size, int64_t out_first,
                          int64_t count);

// Inputs that outputs read: [first, last).
struct TapRange {
  int64_t first = 0, last = 0;
};
TapRange InputsOf(const ResampleTaps& taps);
// Counts inputs from `first` on.
void Rebase(ResampleTaps* taps, int64_t first);

// Gives `sink` output rows 0, 1, ... of columns.count() pixels; the row is valid during the call. `mirrored` swaps left
// and right of the output. `scratch` is kept from call to call.
void ResizePixels(const PixelRows& in, int64_t in_rows, const ResampleTaps& columns, const ResampleTaps& rows,
                  bool mirrored, std::vector<uint8_t>* scratch,
                  const std::function<void(int64_t y, const uint8_t* row)>& sink);

// One row to its three planes: as they are, or through a table of 3 x 256.
void SplitPlanes(const uint8_t* row, int64_t width, uint8_t* red, uint8_t* green, uint8_t* blue);
void SplitPlanes(const uint8_t* row, int64_t width, const float* table, float* red, float* green, float* blue);

}  // namespace athanor
