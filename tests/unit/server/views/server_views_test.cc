// What people are shown of a core's state.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/service/channel.h"
#include "server/storage/record_codec.h"
#include "server/views/checkpoint_views.h"
#include "server/views/cluster_views.h"
#include "server/views/job_views.h"
#include "tests/unit/server/core/core_harness.h"

namespace athanor {
namespace {

using core::CoreHarness;
using core::JobId;
using testing::HasSubstr;

std::string JobDir(const JobId& job) {
  return "/checkpoints/" + job.str();
}

// All pages, as a client reads them.
std::vector<std::string> AllJobs(const core::CoordinatorCore& core, v1::ListJobsRequest request) {
  std::vector<std::string> ids;
  do {
    const auto page = ShowJobs(core, JobDir, request);
    EXPECT_TRUE(page.ok()) << page.status();
    if (!page.ok()) break;
    for (const v1::Job& job : page->jobs()) ids.push_back(job.id());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return ids;
}

TEST(JobViews, NewestFirstInPagesOfSizeAndBytes) {
  CoreHarness h;
  std::vector<std::string> expected;
  for (int i = 0; i < 7; ++i) expected.insert(expected.begin(), h.Submit().str());
  v1::ListJobsRequest request;
  request.set_page_size(3);
  EXPECT_EQ(AllJobs(h.core, request), expected);
  // Long options: a page ends by its bytes.
  v1::JobSpec spec;
  spec.mutable_task()->set_options_json(std::string(kMaxPageBytes / 2, 'x'));
  for (int i = 0; i < 4; ++i) {
    core::SubmitJob event{.call = 100u + i, .request = h.Key(""), .id = JobId(absl::StrCat("large-", i))};
    event.spec.name = "large";
    event.spec.payload = spec.SerializeAsString();
    h.Step(event);
    expected.insert(expected.begin(), event.id.str());
  }
  request.set_page_size(1000);
  EXPECT_LT(ShowJobs(h.core, JobDir, request)->jobs_size(), 4);
  EXPECT_EQ(AllJobs(h.core, request), expected);
  request.set_name("large");
  EXPECT_EQ(AllJobs(h.core, request).size(), 4u);
  request.set_page_token("\xff");
  EXPECT_THAT(std::string(ShowJobs(h.core, JobDir, request).status().message()), HasSubstr("page_token: '"));
}

TEST(JobViews, EventsOfATypeAreFoundBehindOthers) {
  auto store = MakeMemoryStore();
  WriteBatch batch;
  for (int64_t sequence = 1; sequence <= 500; ++sequence) {
    auto [key, value] = EncodeRecord(
        {core::JobEventEntry{JobId("a"), sequence, absl::UnixEpoch(), sequence % 100 == 0 ? "Rare" : "Usual"}});
    batch.operations.push_back({std::move(key), std::move(value)});
  }
  ASSERT_TRUE(store->Commit(batch).ok());
  v1::ListEventsRequest request;
  request.add_types("rare");
  request.set_limit(3);
  const auto page = ShowEvents(*store, JobId("a"), request);
  ASSERT_TRUE(page.ok()) << page.status();
  ASSERT_EQ(page->events_size(), 3);
  EXPECT_EQ(page->events(2).sequence(), 300);
  request.set_after(page->next_after());
  EXPECT_EQ(ShowEvents(*store, JobId("a"), request)->events_size(), 2);
}

TEST(CheckpointViews, CommittedOnesAndThoseThatHaveGone) {
  CoreHarness h;
  h.Register("w1", 1);
  const JobId job = h.Submit();
  h.StartTraining(job);
  for (core::Step step : {10, 20, 30}) h.Save(job, step);
  h.Vote(job, 0, 40);
  v1::ListCheckpointsRequest request;
  request.set_page_size(2);
  auto page = ShowCheckpoints(h.core, job, "/dir", request);
  ASSERT_TRUE(page.ok()) << page.status();
  ASSERT_EQ(page->checkpoints_size(), 2);
  EXPECT_EQ(page->checkpoints(0).step(), 30) << "40 is not committed";
  EXPECT_EQ(page->checkpoints(0).path(), "/dir/step-000000000030");
  request.set_page_token(page->next_page_token());
  page = ShowCheckpoints(h.core, job, "/dir", request);
  ASSERT_EQ(page->checkpoints_size(), 1);
  EXPECT_EQ(page->checkpoints(0).step(), 10);
  EXPECT_EQ(ShowCheckpoint(h.core, job, 5, "/dir").note(), "is deleted");
}

TEST(ClusterViews, SlotsOfWorkersThatTakeRanks) {
  CoreHarness h;
  auto store = MakeMemoryStore();
  h.Register("w1", 4);
  h.Register("w2", 2);
  h.StartTraining(h.Submit({.ranks = 3}));
  const v1::ClusterStatus status =
      ShowCluster(h.core, *store, absl::ResourceExhaustedError("no space"), absl::UnixEpoch());
  EXPECT_EQ(status.slots_total(), 6);
  EXPECT_EQ(status.slots_free(), 3);
  EXPECT_EQ(status.jobs_by_state().at("RUNNING"), 1);
  EXPECT_FALSE(status.store_writable());
  EXPECT_EQ(status.store_error(), "no space");
  v1::ListWorkersRequest request;
  request.set_page_size(1);
  const v1::ListWorkersResponse first = ShowWorkers(h.core, request, h.now);
  ASSERT_EQ(first.workers_size(), 1);
  EXPECT_EQ(first.next_page_token(), "w1");
}

}  // namespace
}  // namespace athanor
