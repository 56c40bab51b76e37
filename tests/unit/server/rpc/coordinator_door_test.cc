// What a client or an agent gets from a whole coordinator: records that a rank may store, lists, health, metrics.
#include <gmock/gmock.h>
#include <google/protobuf/empty.pb.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "tests/unit/server/rpc/coordinator_door.h"

namespace athanor {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// Each of these was acknowledged, stored, and refused as damage at the next start.
TEST_F(CoordinatorDoor, ARankCannotStoreWhatTheNextStartCannotRead) {
  Connect();
  const std::string job = Submit(Spec("digits"));
  const v1::RankId id = Train(job);
  std::vector<v1::RankCall> bad(7);
  bad[0].mutable_abandon_checkpoint()->set_step(-1);
  bad[1].mutable_commit_shard()->set_step(-1);
  bad[1].mutable_commit_shard()->mutable_shard()->set_file("x");
  bad[2].mutable_commit_manifest()->set_step(-7);
  bad[3].mutable_report_damage()->set_step(int64_t{1} << 62);
  bad[4].mutable_commit_shard()->set_step(10);
  bad[4].mutable_commit_shard()->mutable_shard()->set_file("../escape");
  bad[5].mutable_commit_manifest()->set_step(10);
  bad[5].mutable_commit_manifest()->set_bytes(-1);
  bad[6].mutable_report_evaluation()->set_step(-1);
  for (const v1::RankCall& call : bad) {
    const v1::RankCallReply reply = RankCall(id, call);
    EXPECT_EQ(reply.code(), static_cast<int>(absl::StatusCode::kInvalidArgument)) << call.ShortDebugString();
    EXPECT_THAT(reply.message(), HasSubstr("allowed:"));
  }
  EXPECT_EQ(Commit(id, 10).code(), 0) << "the session lives";
  v1::RankCall evaluation;
  evaluation.mutable_report_evaluation()->set_step(10);
  (*evaluation.mutable_report_evaluation()->mutable_metrics())["loss"] = 0.25;
  EXPECT_EQ(RankCall(id, evaluation).code(), 0);
  Stop();
  Start();
  EXPECT_TRUE(aside_.empty());
  v1::GetJobRequest request;
  request.set_job(job);
  v1::Job found;
  ASSERT_TRUE(Call(*jobs_, &v1::JobService::Stub::GetJob, request, &found).ok());
  EXPECT_EQ(found.state(), v1::RUNNING);
  v1::ListCheckpointsRequest list;
  list.set_job(job);
  v1::ListCheckpointsResponse checkpoints;
  ASSERT_TRUE(Call(*checkpoints_, &v1::CheckpointService::Stub::ListCheckpoints, list, &checkpoints).ok());
  ASSERT_EQ(checkpoints.checkpoints_size(), 1);
  EXPECT_EQ(checkpoints.checkpoints(0).metrics().at("loss"), 0.25) << "what an evaluation found is stored";
}

// A rank that says that it is done before all have joined.
TEST_F(CoordinatorDoor, NothingIsFinishedBeforeItWasJoined) {
  Connect();
  Submit(Spec("digits", 2));
  const v1::RankId id = Launched();
  v1::RankCall finish;
  finish.mutable_finish();
  const v1::RankCallReply reply = RankCall(id, finish);
  EXPECT_EQ(reply.code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(reply.message(), HasSubstr("its ranks have not all joined"));
}

TEST_F(CoordinatorDoor, ListsOfLargeJobsComeInPagesThatCanBeSent) {
  v1::JobSpec large = Spec("large", 64);
  large.mutable_task()->set_options_json(absl::StrCat(R"({"data": ")", std::string(250'000, 'x'), R"("})"));
  std::set<std::string> submitted, listed;
  for (int i = 0; i < 20; ++i) submitted.insert(Submit(large));
  v1::ListJobsRequest request;
  request.set_page_size(1000);
  int pages = 0;
  do {
    v1::ListJobsResponse page;
    const grpc::Status status = Call(*jobs_, &v1::JobService::Stub::ListJobs, request, &page);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ASSERT_GT(page.jobs_size(), 0);
    for (const v1::Job& job : page.jobs()) EXPECT_TRUE(listed.insert(job.id()).second) << "listed once";
    request.set_page_token(page.next_page_token());
    ++pages;
  } while (!request.page_token().empty());
  EXPECT_EQ(listed, submitted);
  EXPECT_GT(pages, 1);
}

TEST_F(CoordinatorDoor, AJobThatCouldNotBeLaunchedIsRefusedAtTheDoor) {
  v1::JobSpec spec = Spec("huge");
  for (int i = 0; i < 64; ++i) (*spec.mutable_env())[absl::StrCat("V", i)] = std::string(60'000, 'x');
  v1::SubmitJobResponse response;
  grpc::Status status = TrySubmit(spec, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), AllOf(HasSubstr("the job: 38"), HasSubstr("allowed: 2097152")));
  spec.clear_env();
  for (int i = 0; i < 30; ++i) (*spec.mutable_env())[absl::StrCat("V", i)] = std::string(60'000, 'x');
  status = TrySubmit(spec, &response);
  EXPECT_THAT(status.error_message(), HasSubstr("bytes together; allowed: 1048576"));
  // The largest that is taken can be launched.
  Connect();
  spec.clear_env();
  for (int i = 0; i < 16; ++i) (*spec.mutable_env())[absl::StrCat("V", i)] = std::string(65'000, 'x');
  spec.mutable_task()->set_options_json(absl::StrCat(R"({"d": ")", std::string(262'000, 'x'), R"("})"));
  const std::string job = Submit(spec);
  EXPECT_EQ(Launched().job(), job);
}

TEST_F(CoordinatorDoor, ManyMistakesStillArriveAsOneError) {
  v1::JobSpec spec = Spec("digits");
  std::string runner = R"({"steps": 1, "optim": {"type": "sgd"})";
  for (int i = 0; i < 2000; ++i) absl::StrAppend(&runner, ", \"unknown_option_", i, "\": 1");
  spec.set_runner_json(runner + "}");
  v1::SubmitJobResponse response;
  const grpc::Status status = TrySubmit(spec, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), AllOf(HasSubstr("runner.unknown_option_0"), HasSubstr(" …")));
}

TEST_F(CoordinatorDoor, WorkersWithManyLabelsComeInPages) {
  v1::Register registration;
  registration.set_slots(1);
  registration.set_protocol(kProtocolVersion);
  for (int i = 0; i < 64; ++i)
    (*registration.mutable_labels())[absl::StrCat(i, std::string(120, 'k'))] = std::string(256, 'v');
  for (int i = 0; i < 60; ++i) {
    registration.set_worker(absl::StrCat("w", i));
    registration.set_instance(absl::StrCat(i));
    Connect(registration);
    agent_->Await([](const auto& message) { return message.has_registered(); });
  }
  v1::ListWorkersRequest request;
  std::set<std::string> listed;
  int pages = 0;
  do {
    v1::ListWorkersResponse page;
    ASSERT_TRUE(Call(*workers_, &v1::WorkerService::Stub::ListWorkers, request, &page).ok());
    for (const v1::Worker& worker : page.workers()) EXPECT_TRUE(listed.insert(worker.id()).second);
    request.set_page_token(page.next_page_token());
    ++pages;
  } while (!request.page_token().empty());
  EXPECT_EQ(listed.size(), 60u);
  EXPECT_GT(pages, 1);
}

TEST_F(CoordinatorDoor, AnAgentWithImpossibleLabelsIsTold) {
  v1::Register registration;
  registration.set_worker("w1");
  registration.set_protocol(kProtocolVersion);
  (*registration.mutable_labels())["zone"] = std::string(300, 'x');
  Connect(registration);
  const std::string reason =
      agent_->Await([](const auto& message) { return message.has_refused(); }).refused().reason();
  EXPECT_EQ(reason, "labels.zone: 300 bytes; allowed: 256");
}

TEST_F(CoordinatorDoor, ARepeatedVerbGetsTheSameAnswer) {
  Connect();
  const std::string job = Submit(Spec("digits"));
  const v1::RankId id = Train(job);
  for (const int64_t step : {10, 20, 30, 40}) ASSERT_EQ(Commit(id, step).code(), 0);
  v1::TagCheckpointRequest tag;
  tag.set_job(job);
  tag.set_checkpoint("20");
  tag.set_tag("release");
  tag.set_request_key("tag");
  v1::UntagCheckpointRequest untag;
  untag.set_job(job);
  untag.set_tag("release");
  untag.set_request_key("untag");
  v1::Checkpoint answer;
  for (int again = 0; again < 2; ++again) {
    ASSERT_TRUE(Call(*checkpoints_, &v1::CheckpointService::Stub::TagCheckpoint, tag, &answer).ok());
    EXPECT_EQ(answer.step(), 20) << again;
  }
  for (int again = 0; again < 2; ++again) {
    answer.Clear();
    ASSERT_TRUE(Call(*checkpoints_, &v1::CheckpointService::Stub::UntagCheckpoint, untag, &answer).ok());
    EXPECT_EQ(answer.step(), 20) << again;
    EXPECT_EQ(answer.name(), "step-000000000020") << again;
  }
  answer.Clear();
  ASSERT_TRUE(Call(*checkpoints_, &v1::CheckpointService::Stub::TagCheckpoint, tag, &answer).ok());
  EXPECT_EQ(answer.step(), 20) << "though the tag is gone";
  v1::DeleteCheckpointRequest remove;
  remove.set_job(job);
  remove.set_checkpoint("20");
  remove.set_request_key("delete");
  std::string message;
  for (int again = 0; again < 3; ++again) {
    v1::DeleteCheckpointResponse deleted;
    ASSERT_TRUE(Call(*checkpoints_, &v1::CheckpointService::Stub::DeleteCheckpoint, remove, &deleted).ok()) << again;
    EXPECT_EQ(deleted.checkpoint().step(), 20) << again;
    if (again > 0) EXPECT_EQ(deleted.message(), message);
    message = deleted.message();
    if (again != 1) continue;
    v1::AgentMessage gone;  // the files are deleted: so is the record
    gone.mutable_files_deleted()->set_job(job);
    gone.mutable_files_deleted()->set_step(20);
    gone.set_sequence(1);
    agent_->stream->Write(gone);
    agent_->Await([](const auto& one) { return one.has_ack(); });
  }
}

TEST_F(CoordinatorDoor, AJobThatIsOverCanBeDeleted) {
  const std::string job = Submit(Spec("digits"));
  v1::JobVerbResponse response;
  grpc::Status status = Call(*jobs_, &v1::JobService::Stub::DeleteJob, Verb(job, "early"), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("is Queued; only a job that is over can be deleted"));
  ASSERT_TRUE(Call(*jobs_, &v1::JobService::Stub::CancelJob, Verb(job, "cancel"), &response).ok());
  for (int again = 0; again < 2; ++again) {
    response.Clear();
    status = Call(*jobs_, &v1::JobService::Stub::DeleteJob, Verb(job, "delete"), &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.job(), job);
    EXPECT_EQ(response.message(), absl::StrCat("deleted; the files of its 0 checkpoints stay in /checkpoints/", job));
  }
  v1::GetJobRequest get;
  get.set_job(job);
  v1::Job found;
  EXPECT_EQ(Call(*jobs_, &v1::JobService::Stub::GetJob, get, &found).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Call(*jobs_, &v1::JobService::Stub::DeleteJob, Verb(job, "other"), &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
  Stop();
  Start();
  EXPECT_EQ(Call(*jobs_, &v1::JobService::Stub::GetJob, get, &found).error_code(), grpc::StatusCode::NOT_FOUND);
}

// What a client was told, a scrape shows.
TEST_F(CoordinatorDoor, AScrapeRightAfterAnAnswerShowsIt) {
  Connect();
  EXPECT_THAT(Scrape(), HasSubstr("athanor_slots{use=\"free\"} 4"));
  for (int round = 0; round < 5; ++round) {
    const std::string job = Submit(Spec("digits"));
    EXPECT_THAT(Scrape(),
                AllOf(HasSubstr("athanor_jobs{state=\"running\"} 1"), HasSubstr("athanor_slots{use=\"used\"} 1")));
    const v1::RankId id = Train(job);
    v1::RankCall finish;
    finish.mutable_finish();
    EXPECT_EQ(RankCall(id, finish).code(), 0);
    v1::AgentMessage exited;
    *exited.mutable_exited()->mutable_id() = id;
    exited.mutable_exited()->set_finished(true);
    exited.set_sequence(static_cast<uint64_t>(round) + 1);
    agent_->stream->Write(exited);
    agent_->Await([](const auto& one) { return one.has_ack(); });
    EXPECT_THAT(Scrape(), AllOf(HasSubstr("athanor_jobs{state=\"running\"} 0"),
                                HasSubstr(absl::StrCat("athanor_jobs{state=\"succeeded\"} ", round + 1)),
                                HasSubstr("athanor_slots{use=\"used\"} 0")));
  }
  const std::string waiting = Submit(Spec("wide", 64));
  EXPECT_THAT(Scrape(), HasSubstr("athanor_jobs{state=\"queued\"} 1"));
  v1::JobVerbResponse response;
  ASSERT_TRUE(Call(*jobs_, &v1::JobService::Stub::CancelJob, Verb(waiting, "cancel"), &response).ok());
  EXPECT_THAT(Scrape(), AllOf(HasSubstr("athanor_jobs{state=\"queued\"} 0"), HasSubstr("{state=\"cancelled\"} 1")));
  ASSERT_TRUE(Call(*jobs_, &v1::JobService::Stub::DeleteJob, Verb(waiting, "delete"), &response).ok());
  EXPECT_THAT(Scrape(), HasSubstr("athanor_jobs{state=\"cancelled\"} 0"));
}

// Python's and Go's clients cannot send such a message; others can.
TEST_F(CoordinatorDoor, ARequestThatCannotBeReadIsAnInvalidArgument) {
  const std::map<std::string, std::string> texts = {{"GetJob", "athanor.v1.GetJobRequest.job"},
                                                    {"CancelJob", "athanor.v1.JobVerbRequest.job"},
                                                    {"ListEvents", "athanor.v1.ListEventsRequest.job"}};
  for (const std::string& bytes : {std::string("\x0a\x01\xe9", 3), std::string("\xff\xff\xff")}) {
    for (const char* method : {"SubmitJob", "GetJob", "CancelJob", "ListEvents"}) {
      grpc::Slice slice(bytes);
      grpc::ByteBuffer request(&slice, 1), response;
      grpc::GenericStub stub(channel_);
      grpc::ClientContext context;
      grpc::CompletionQueue queue;
      auto call = stub.PrepareUnaryCall(&context, absl::StrCat("/athanor.v1.JobService/", method), request, &queue);
      call->StartCall();
      grpc::Status status;
      void* tag = nullptr;
      bool ok = false;
      call->Finish(&response, &status, &tag);
      ASSERT_TRUE(queue.Next(&tag, &ok));
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << method << ": " << status.error_message();
      EXPECT_THAT(status.error_message(), AllOf(HasSubstr(method), HasSubstr("cannot be read")));
      const auto field = texts.find(method);
      if (bytes.size() == 3 && bytes[0] == '\x0a' && field != texts.end())
        EXPECT_THAT(status.error_message(), HasSubstr(field->second + " is not UTF-8"));
    }
  }
}

// Retention is decided by the coordinator, from the options as the trainer reads them.
TEST_F(CoordinatorDoor, KeepsAsManyCheckpointsAsTheTrainerWasTold) {
  Connect();
  for (const char* runner : {R"({"steps": 400, "optim": {"type": "sgd"}, "ckpt": {"keep_latest_k": 6}})",
                             R"({"steps": 400.0, "optim": {"type": "sgd"}, "checkpoint": {"keep_latest_k": 6.0}})"}) {
    v1::JobSpec spec = Spec("digits");
    spec.set_runner_json(runner);
    const std::string job = Submit(spec);
    const v1::RankId id = Train(job);
    for (int64_t step = 1; step <= 8; ++step) ASSERT_EQ(Commit(id, step).code(), 0);
    v1::ListCheckpointsRequest request;
    request.set_job(job);
    v1::ListCheckpointsResponse list;
    ASSERT_TRUE(Call(*checkpoints_, &v1::CheckpointService::Stub::ListCheckpoints, request, &list).ok());
    EXPECT_EQ(list.checkpoints_size(), 6) << runner;
    v1::GetJobRequest get;
    get.set_job(job);
    v1::Job found;
    ASSERT_TRUE(Call(*jobs_, &v1::JobService::Stub::GetJob, get, &found).ok());
    EXPECT_EQ(found.spec().runner_json(), R"({"checkpoint":{"keep_latest_k":6},"optim":{"type":"sgd"},"steps":400})");
  }
}

}  // namespace
}  // namespace athanor
