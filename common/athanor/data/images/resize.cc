#include "athanor/data/images/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// One source for all processors: the compiler makes a copy per instruction set, the loader picks.
#if defined(__x86_64__) && defined(__ELF__)
#define ATHANOR_EVERY_SIMD __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ATHANOR_EVERY_SIMD
#endif
#define ATHANOR_INLINE inline __attribute__((always_inline))

namespace athanor {
namespace {

constexpr int kWeightBits = 32 - 8 - 2;
constexpr int32_t kHalf = 1 << (kWeightBits - 1);

using FourBytes = uint8_t __attribute__((vector_size(4)));
using FourInts = int32_t __attribute__((vector_size(16)));

// Rows share the loading of weights.
template <int kRows>
ATHANOR_INLINE void ResampleColumns(const uint8_t* in, size_t in_bytes, const ResampleTaps& taps, bool mirrored,
                                    uint8_t* out, size_t out_bytes) {
  const int64_t count = taps.count(), width = taps.width;
  const int32_t* weights = taps.weights.data();
  for (int64_t x = 0; x < count; ++x, weights += width) {
    const uint8_t* pixel = in + static_cast<int64_t>(taps.first[static_cast<size_t>(x)]) * kPixelBytes;
    FourInts sums[kRows];
    for (FourInts& sum : sums) sum = FourInts{kHalf, kHalf, kHalf, kHalf};
    for (int64_t t = 0; t < width; ++t, pixel += kPixelBytes) {
      for (int row = 0; row < kRows; ++row) {
        FourBytes bytes;
        std::memcpy(&bytes, pixel + static_cast<size_t>(row) * in_bytes, sizeof bytes);
        sums[row] += __builtin_convertvector(bytes, FourInts) * weights[t];
      }
    }
    const int64_t place = (mirrored ? count - 1 - x : x) * kPixelBytes;
    for (int row = 0; row < kRows; ++row) {
      // Weights are positive and sum up to one: nothing to clamp.
      const FourBytes bytes = __builtin_convertvector(sums[row] >> kWeightBits, FourBytes);
      std::memcpy(out + static_cast<size_t>(row) * out_bytes + place, &bytes, sizeof bytes);
    }
  }
}

ATHANOR_EVERY_SIMD void AllColumns(const uint8_t* in, size_t in_bytes, int64_t rows, const ResampleTaps& taps,
                                   bool mirrored, uint8_t* out, size_t out_bytes) {
  constexpr int kRows = 4;
  int64_t row = 0;
  for (; row + kRows <= rows; row += kRows, in += kRows * in_bytes, out += kRows * out_bytes)
    ResampleColumns<kRows>(in, in_bytes, taps, mirrored, out, out_bytes);
  for (; row < rows; ++row, in += in_bytes, out += out_bytes)
    ResampleColumns<1>(in, in_bytes, taps, mirrored, out, out_bytes);
}

template <int kBlock>
ATHANOR_INLINE void BlendBlock(const uint8_t* in, size_t in_bytes, const int32_t* weights, int64_t width,
                               uint8_t* out) {
  int32_t sums[kBlock];
  for (int i = 0; i < kBlock; ++i) sums[i] = kHalf;
  for (int64_t t = 0; t < width; ++t, in += in_bytes) {
    for (int i = 0; i < kBlock; ++i) sums[i] += in[i] * weights[t];
  }
  for (int i = 0; i < kBlock; ++i) out[i] = static_cast<uint8_t>(sums[i] >> kWeightBits);
}

ATHANOR_EVERY_SIMD void BlendRows(const uint8_t* in, size_t in_bytes, const int32_t* weights, int64_t width,
                                  size_t bytes, uint8_t* out) {
  constexpr size_t kBlock = 64;
  size_t i = 0;
  for (; i + kBlock <= bytes; i += kBlock) BlendBlock<kBlock>(in + i, in_bytes, weights, width, out + i);
  for (; i < bytes; i += kPixelBytes) BlendBlock<kPixelBytes>(in + i, in_bytes, weights, width, out + i);
}

void MirrorRow(const uint8_t* in, int64_t width, uint8_t* out) {
  for (int64_t x = 0; x < width; ++x)
    std::memcpy(out + (width - 1 - x) * kPixelBytes, in + x * kPixelBytes, kPixelBytes);
}

}  // namespace

ResampleTaps BilinearTaps(int64_t in_size, double begin, double end, int64_t out_size, int64_t out_first,
                          int64_t count) {
  ResampleTaps taps;
  const double scale = (end - begin) / static_cast<double>(out_size), support = std::max(scale, 1.0);
  taps.identity = scale == 1 && begin == std::floor(begin);
  const auto limit = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  std::vector<double> exact(static_cast<size_t>(limit * count), 0.0);
  taps.first.resize(static_cast<size_t>(count));
  const double steepness = 1.0 / support;
  for (int64_t i = 0; i < count; ++i) {
    const double center = begin + (static_cast<double>(out_first + i) + 0.5) * scale;
    const int64_t low = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    const int64_t high = std::min(static_cast<int64_t>(center + support + 0.5), in_size);
    double* row = &exact[static_cast<size_t>(i * limit)];
    double sum = 0;
    for (int64_t t = 0; t < high - low; ++t) {
      const double distance = std::abs((static_cast<double>(t + low) - center + 0.5) * steepness);
      row[t] = distance < 1 ? 1 - distance : 0;
      sum += row[t];
      if (row[t] > 0) taps.width = std::max(taps.width, t + 1);
    }
    for (int64_t t = 0; t < high - low && sum != 0; ++t) row[t] /= sum;
    taps.first[static_cast<size_t>(i)] = static_cast<int32_t>(low);
  }
  taps.weights.resize(static_cast<size_t>(taps.width * count), 0);
  for (int64_t i = 0; i < count; ++i) {
    int32_t& first = taps.first[static_cast<size_t>(i)];
    // At the end of the inputs unused taps come first, so that none reads behind them.
    const int64_t shift = std::max<int64_t>(first + taps.width - in_size, 0);
    first -= static_cast<int32_t>(shift);
    int32_t* row = &taps.weights[static_cast<size_t>(i * taps.width)];
    for (int64_t t = shift; t < taps.width; ++t)
      row[t] = static_cast<int32_t>(0.5 + exact[static_cast<size_t>(i * limit + t - shift)] * (1 << kWeightBits));
  }
  return taps;
}

TapRange InputsOf(const ResampleTaps& taps) {
  return taps.first.empty() ? TapRange{} : TapRange{taps.first.front(), taps.first.back() + taps.width};
}

void Rebase(ResampleTaps* taps, int64_t first) {
  for (int32_t& input : taps->first) input -= static_cast<int32_t>(first);
}

void ResizePixels(const PixelRows& in, int64_t in_rows, const ResampleTaps& columns, const ResampleTaps& rows,
                  bool mirrored, std::vector<uint8_t>* scratch,
                  const std::function<void(int64_t y, const uint8_t* row)>& sink) {
  const auto row_bytes = static_cast<size_t>(columns.count() * kPixelBytes);
  const size_t wide_bytes = static_cast<size_t>(in_rows) * row_bytes;
  if (scratch->size() < wide_bytes + row_bytes) scratch->resize(wide_bytes + row_bytes);
  uint8_t* const blended = scratch->data() + wide_bytes;
  PixelRows wide = {scratch->data(), row_bytes};
  const uint8_t* first = columns.identity ? in.data + static_cast<int64_t>(columns.first[0]) * kPixelBytes : nullptr;
  if (!columns.identity) {
    AllColumns(in.data, in.row_bytes, in_rows, columns, mirrored, scratch->data(), row_bytes);
  } else if (!mirrored) {
    wide = {first, in.row_bytes};
  } else {
    for (int64_t y = 0; y < in_rows; ++y)
      MirrorRow(first + static_cast<size_t>(y) * in.row_bytes, columns.count(),
                scratch->data() + static_cast<size_t>(y) * row_bytes);
  }
  for (int64_t y = 0; y < rows.count(); ++y) {
    const uint8_t* row = wide.data + static_cast<size_t>(rows.first[static_cast<size_t>(y)]) * wide.row_bytes;
    if (!rows.identity) {
      BlendRows(row, wide.row_bytes, &rows.weights[static_cast<size_t>(y * rows.width)], rows.width, row_bytes,
                blended);
      row = blended;
    }
    sink(y, row);
  }
}

ATHANOR_EVERY_SIMD void SplitPlanes(const uint8_t* row, int64_t width, uint8_t* red, uint8_t* green, uint8_t* blue) {
  for (int64_t x = 0; x < width; ++x) {
    red[x] = row[x * kPixelBytes];
    green[x] = row[x * kPixelBytes + 1];
    blue[x] = row[x * kPixelBytes + 2];
  }
}

void SplitPlanes(const uint8_t* row, int64_t width, const float* table, float* red, float* green, float* blue) {
  for (int64_t x = 0; x < width; ++x) {
    uint32_t pixel;
    std::memcpy(&pixel, row + x * kPixelBytes, sizeof pixel);
    red[x] = table[pixel & 255];
    green[x] = table[256 + (pixel >> 8 & 255)];
    blue[x] = table[512 + (pixel >> 16 & 255)];
  }
}

}  // namespace athanor
