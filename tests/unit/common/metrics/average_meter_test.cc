#include "athanor/metrics/average_meter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace athanor {
namespace {

TEST(AverageMetersTest, WeighsAndReducesOverRanks) {
  AverageMeters a, b;
  a.Update("loss", torch::tensor(1.0F), 3);
  a.Update("loss", torch::tensor({5.0F}), 1);
  a.Update("lr", 0.5);
  b.Update("loss", torch::tensor(8.0F), 4);
  b.Update("lr", 1.5);
  EXPECT_DOUBLE_EQ(a.Read()["loss"], 2);
  const auto means = a.Read(a.Pack() + b.Pack());
  EXPECT_DOUBLE_EQ(means.at("loss"), 5);
  EXPECT_DOUBLE_EQ(means.at("lr"), 1);
}

TEST(AverageMetersTest, PaddingCountsNothingAndResetKeepsNames) {
  AverageMeters meters;
  meters.Update("loss", torch::tensor(std::nanf("")), 0);
  EXPECT_TRUE(std::isnan(meters.Read()["loss"]));
  meters.Update("loss", torch::tensor(2.0F, torch::requires_grad()), 1);
  meters.Register("accuracy");
  EXPECT_EQ(meters.Read()["loss"], 2);
  meters.Reset();
  EXPECT_THAT(meters.names(), testing::ElementsAre("accuracy", "loss"));
  meters.Update("loss", torch::tensor(4.0F), 1);
  EXPECT_EQ(meters.Read()["loss"], 4);
}

}  // namespace
}  // namespace athanor
