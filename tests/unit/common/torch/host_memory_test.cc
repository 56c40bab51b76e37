#include "athanor/torch/host_memory.h"

#include <torch/torch.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace athanor {
namespace {

constexpr int64_t kMegabyte = 1 << 20;

torch::Tensor OfMegabytes(int64_t count) {
  return torch::empty({count * kMegabyte}, torch::kUInt8);
}

TEST(HostMemory, LargeBlocksComeBack) {
  const torch::Tensor before = OfMegabytes(40);  // the old allocator's: returned to it
  ASSERT_TRUE(KeepHostMemory());
  ASSERT_TRUE(KeepHostMemory());
  torch::Tensor block = OfMegabytes(40);
  const void* place = block.data_ptr();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(place) % (2 * kMegabyte), 0u);
  block.fill_(7);
  EXPECT_EQ(KeptHostBlocksBytes(), 0);
  block.reset();
  EXPECT_EQ(KeptHostBlocksBytes(), 40 * kMegabyte);
  EXPECT_NE(OfMegabytes(80).data_ptr(), place);  // too small for it
  block = OfMegabytes(39);
  EXPECT_EQ(block.data_ptr(), place);
  EXPECT_EQ(torch::zeros({40 * kMegabyte}, torch::kUInt8).sum().item<int64_t>(), 0);  // not what was there
  block.reset();
  ReleaseKeptHostMemory();
  EXPECT_EQ(KeptHostBlocksBytes(), 0);
}

TEST(HostMemory, KeepsABoundedAmount) {
  ASSERT_TRUE(KeepHostMemory());
  {
    std::vector<torch::Tensor> many;
    for (int i = 0; i < 12; ++i) many.push_back(OfMegabytes(40));
    const torch::Tensor huge = OfMegabytes(300);
  }
  EXPECT_LE(KeptHostBlocksBytes(), 256 * kMegabyte);
  EXPECT_GE(KeptHostBlocksBytes(), 200 * kMegabyte);
}

TEST(HostMemory, ManyThreadsGiveAndTake) {
  ASSERT_TRUE(KeepHostMemory());
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([i] {
      for (int round = 0; round < 50; ++round) {
        torch::Tensor block = OfMegabytes(33 + i);
        block[0] = i;
        block[-1] = i;
        torch::Tensor small = torch::ones({100});
        EXPECT_EQ(block[0].item<int>() + block[-1].item<int>(), 2 * i);
      }
    });
  }
  for (std::thread& one : threads) one.join();
}

int64_t ResidentKilobytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  int64_t kilobytes = 0;
  while (status >> word) {
    if (word == "RssFile:" && status >> kilobytes) return kilobytes;
  }
  return 0;
}

TEST(HostMemory, StartupCodeLeavesTheResidentSet) {
  const torch::Tensor x = torch::arange(6.0).reshape({2, 3});
  const torch::Tensor before = x.matmul(x.t());
  const int64_t resident = ResidentKilobytes();
  ASSERT_TRUE(ForgetStartupCode());
  EXPECT_LT(ResidentKilobytes(), resident - 10 * 1024);
  EXPECT_TRUE(torch::equal(x.matmul(x.t()), before)) << "what is needed comes back";
  EXPECT_TRUE(ForgetStartupCode());
}

TEST(HostMemory, SaysWhatItCouldNotHave) {
  ASSERT_TRUE(KeepHostMemory());
  EXPECT_THROW(OfMegabytes(int64_t{1} << 26), c10::OutOfMemoryError);
}

}  // namespace
}  // namespace athanor
