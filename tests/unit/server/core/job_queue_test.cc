#include "server/core/job_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace athanor::core {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

JobEntry Job(const std::string& id, uint64_t order, int32_t priority = 0, int32_t ranks = 1) {
  JobEntry job;
  job.id = JobId(id);
  job.submit_order = order;
  job.spec.priority = priority;
  job.spec.ranks = ranks;
  return job;
}

TEST(JobQueue, PriorityThenAgeAndReservedOnesFirst) {
  JobQueue queue;
  JobEntry old = Job("old", 1), young = Job("young", 2), high = Job("high", 3, 5);
  for (const JobEntry* job : {&young, &old, &high}) queue.Add(*job);
  EXPECT_EQ(queue.Position(high), 1);
  EXPECT_EQ(queue.Position(old), 2);
  EXPECT_EQ(queue.Position(young), 3);
  EXPECT_THAT(queue.TakeFresh(), ElementsAre(young.id, old.id, high.id));
  EXPECT_THAT(queue.TakeFresh(), IsEmpty());
  EXPECT_EQ(queue.Oldest("cpu"), old.id);
  EXPECT_EQ(queue.Oldest("cuda"), std::nullopt);
  EXPECT_TRUE(queue.Reserve(young));
  EXPECT_TRUE(young.reserved);
  EXPECT_EQ(queue.Position(young), 1);
  queue.Remove(young);
  EXPECT_FALSE(queue.Reserve(young)) << "does not wait any more";
  EXPECT_EQ(queue.Length(), 2);
}

TEST(JobQueue, WhatIsAsideWaitsWithItsShape) {
  JobQueue queue;
  const JobEntry wide = Job("wide", 1, 0, 64), narrow = Job("narrow", 2);
  queue.Add(wide);
  queue.Add(narrow);
  queue.Park(wide);
  EXPECT_TRUE(queue.HasParked(JobQueue::ShapeOf(wide)));
  EXPECT_FALSE(queue.HasParked(JobQueue::ShapeOf(narrow)));
  EXPECT_FALSE(queue.Contains(wide));
  EXPECT_EQ(queue.Oldest("cpu"), narrow.id) << "nobody overtakes what cannot start";
  EXPECT_EQ(queue.Length(), 2);
  EXPECT_EQ(queue.Position(narrow), 2);
  queue.Unpark([](const JobQueue::Shape&) { return false; });
  EXPECT_FALSE(queue.Contains(wide));
  queue.Unpark([&](const JobQueue::Shape& shape) { return shape == JobQueue::ShapeOf(wide); });
  EXPECT_TRUE(queue.Contains(wide));
  EXPECT_EQ(queue.Oldest("cpu"), wide.id);
  queue.Park(wide);
  queue.Remove(wide);
  EXPECT_FALSE(queue.HasParked());
}

TEST(JobQueue, WhoComesLaterWaitsBehindTheHead) {
  JobQueue queue;
  const JobEntry head = Job("head", 1), later = Job("later", 2), first = Job("first", 3, 9);
  for (const JobEntry* job : {&head, &later, &first}) queue.Add(*job);
  EXPECT_EQ(queue.WaitsBehind(later), std::nullopt) << "no pass was made";
  queue.SetHead(head);
  EXPECT_TRUE(queue.IsBlocked("cpu"));
  EXPECT_FALSE(queue.IsBlocked("cuda"));
  EXPECT_EQ(queue.WaitsBehind(later), head.id);
  EXPECT_EQ(queue.WaitsBehind(first), std::nullopt) << "goes before it";
  EXPECT_FALSE(queue.Remove(later));
  queue.Add(later);
  EXPECT_TRUE(queue.Remove(head)) << "the others may go";
  EXPECT_EQ(queue.WaitsBehind(later), std::nullopt);
}

}  // namespace
}  // namespace athanor::core
