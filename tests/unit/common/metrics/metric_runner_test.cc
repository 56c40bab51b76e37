// Metrics of several tasks in what a runner does with a step's output.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "athanor/metrics/functional/binary.h"
#include "athanor/metrics/metric_factory.h"
#include "athanor/metrics/multitask_metrics.h"
#include "athanor/runner/step/step_meters.h"

namespace athanor {
namespace {

using ::testing::HasSubstr;

TEST(RunnerMetrics, OfTasksComeWithTheMeans) {
  MultiTaskMetrics tasks = *MultiTaskMetrics::Create({.aggregate = Aggregate::kMicro});
  for (const char* task : {"a", "b"})
    ASSERT_TRUE(tasks.Add(task, *BuildMetrics({.type = "binary", .metrics = {metrics::BinaryAccuracy()}})).ok());
  StepMeters meters;
  meters.SetMetrics(std::make_unique<MultiTaskMetrics>(std::move(tasks)));
  StepOutput output;
  output.loss = torch::tensor(1.0);
  const torch::Tensor scores = torch::tensor({0.2F, 0.8F}).requires_grad_();
  output.tasks = {{"a", {scores, torch::tensor({0, 1})}}};
  meters.Add(output, 2);
  // A task without a batch, and one of another size.
  output.tasks = {{"b", {torch::tensor({0.2F, 0.8F, 0.8F, 0.8F}), torch::tensor({1, 1, 0, 0})}}};
  meters.Add(output, 4);
  const auto means = meters.Means(nullptr);
  ASSERT_TRUE(means.ok()) << means.status();
  EXPECT_EQ(means->at("a/acc"), 1);
  EXPECT_EQ(means->at("b/acc"), 0.25);
  EXPECT_NEAR(means->at("aggregate/acc"), (2 * 1 + 4 * 0.25) / 6, 1e-6);
  EXPECT_EQ(means->at("loss"), 1);
  output.tasks = {{"c", {scores, torch::tensor({0, 1})}}};
  try {
    meters.Add(output, 2);
    FAIL() << "an unknown task";
  } catch (const c10::Error& error) {
    EXPECT_THAT(std::string(error.what()), HasSubstr("no metrics for task 'c'; there are: a, b"));
  }
}

}  // namespace
}  // namespace athanor
