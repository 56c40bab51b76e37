// A MeterSync that counts its collectives, and the comparison of what ranks read.
#pragma once

#include <ATen/CPUGeneratorImpl.h>

#include <memory>
#include <string>
#include <vector>

#include "athanor/metrics/metric_factory.h"
#include "tests/unit/common/parallel/rank_threads.h"

namespace athanor {

class CountingSync : public MeterSync {
 public:
  explicit CountingSync(ProcessGroup& group) : group_(MakeMeterSync(group)) {}
  int rank() const override { return group_->rank(); }
  int world_size() const override { return group_->world_size(); }
  torch::Device device() const override { return group_->device(); }
  absl::StatusOr<torch::Tensor> Gather(const torch::Tensor& bytes) override {
    ++calls_;
    bytes_ += bytes.numel();
    return group_->Gather(bytes);
  }
  // Since the last call.
  int Calls() { return std::exchange(calls_, 0); }
  int64_t Bytes() { return std::exchange(bytes_, 0); }

 private:
  std::shared_ptr<MeterSync> group_;
  int calls_ = 0;
  int64_t bytes_ = 0;
};

inline torch::Tensor Bits(const torch::Tensor& tensor) {
  return tensor.contiguous().reshape({-1}).view(torch::kByte);
}

// Values of all ranks of one run, for comparison after it.
inline void ExpectSameOnAllRanks(const std::vector<MetricValues>& ranks) {
  for (const MetricValues& values : ranks) {
    ASSERT_EQ(values.size(), ranks[0].size());
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_EQ(values[i].first, ranks[0][i].first);
      EXPECT_EQ(values[i].second.scalar_type(), ranks[0][i].second.scalar_type()) << values[i].first;
      EXPECT_TRUE(torch::equal(Bits(values[i].second), Bits(ranks[0][i].second))) << values[i].first;
    }
  }
}

}  // namespace athanor
