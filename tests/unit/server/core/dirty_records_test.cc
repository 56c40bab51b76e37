#include "server/core/dirty_records.h"

#include <gtest/gtest.h>

namespace athanor::core {
namespace {

TEST(DirtyRecords, EachEntryIsWrittenOnceAsItIsAtTheEnd) {
  ClusterState state;
  JobEntry& job = state.jobs[JobId("a")];
  job.id = JobId("a");
  GenerationEntry& generation = state.generations[job.id][1];
  generation.job = job.id;
  generation.number = 1;
  DirtyRecords dirty;
  dirty.Mark(job.id);
  dirty.Mark(job.id);
  dirty.Mark(generation);
  dirty.MarkCheckpoint(job.id, 10);  // has gone meanwhile
  dirty.Mark(WorkerId("gone"));
  job.reason = "at the end";
  std::vector<Effect> effects;
  dirty.Flush(state, effects);
  ASSERT_EQ(effects.size(), 3u) << "the job, who reads it, the generation";
  const auto& put = std::get<PutRecord>(effects[0]);
  EXPECT_EQ(std::get<JobEntry>(put.record).reason, "at the end");
  EXPECT_EQ(std::get<JobEntry>(put.record).version, 1);
  EXPECT_EQ(std::get<Touched>(effects[1]).job, job.id);
  EXPECT_TRUE(std::holds_alternative<GenerationEntry>(std::get<PutRecord>(effects[2]).record));
  effects.clear();
  dirty.Flush(state, effects);
  EXPECT_TRUE(effects.empty());
}

}  // namespace
}  // namespace athanor::core
