#include "athanor/parallel/tensor_fingerprint.h"

#include <ATen/Parallel.h>

#include "gtest/gtest.h"

namespace athanor {
namespace {

TEST(TensorFingerprint, EveryBitAndPlaceCounts) {
  for (const auto type : {torch::kFloat32, torch::kFloat64, torch::kBFloat16, torch::kHalf}) {
    for (const int64_t size : {1, 7, 33, 200001}) {
      const torch::Tensor tensor = torch::arange(size).to(type).contiguous();
      const int64_t same = FingerprintOf({tensor});
      EXPECT_EQ(FingerprintOf({tensor.clone()}), same);
      EXPECT_GT(same, 0);
      for (const int64_t place : {int64_t{0}, size / 2, size - 1}) {
        torch::Tensor changed = tensor.clone();
        static_cast<char*>(changed.data_ptr())[place * changed.element_size()] ^= 1;
        EXPECT_NE(FingerprintOf({changed}), same) << size << ", " << place;
      }
      if (size > 1) EXPECT_NE(FingerprintOf({tensor.flip(0)}), same);
    }
  }
  const torch::Tensor a = torch::ones({3}), b = torch::zeros({3});
  EXPECT_NE(FingerprintOf({a, b}), FingerprintOf({b, a}));
  EXPECT_EQ(FingerprintOf({a, torch::Tensor()}), FingerprintOf({a}));
}

TEST(TensorFingerprint, DoesNotDependOnThreadsOrStrides) {
  const torch::Tensor tensor = torch::arange(1 << 20).to(torch::kFloat32).view({1 << 10, 1 << 10});
  const int threads = at::get_num_threads();
  const int64_t alone = FingerprintOf({tensor});
  at::set_num_threads(threads == 1 ? 2 : 1);
  EXPECT_EQ(FingerprintOf({tensor}), alone);
  at::set_num_threads(threads);
  const torch::Tensor gaps = torch::stack({tensor, tensor + 1}, 2).select(2, 0);
  EXPECT_EQ(FingerprintOf({gaps}), alone);
}

}  // namespace
}  // namespace athanor
