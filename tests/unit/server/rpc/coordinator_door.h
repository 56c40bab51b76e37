// A coordinator as its clients and agents meet it: real gRPC on loopback, a store on the disk, one agent that the test
// plays.
#pragma once

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "athanor/v1/agent_service.grpc.pb.h"
#include "athanor/v1/job_service.grpc.pb.h"
#include "common/service/protocol_version.h"
#include "server/rpc/grpc_server.h"
#include "server/storage/rocksdb_store.h"

namespace athanor {

class CoordinatorDoor : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::path(testing::TempDir()) / absl::StrCat("door-", getpid());
    std::filesystem::remove_all(directory_);
    Start();
  }
  void TearDown() override {
    Stop();
    std::filesystem::remove_all(directory_);
  }

  void Start() {
    absl::StatusOr<std::unique_ptr<MetadataStore>> store = OpenRocksDbStore(directory_.string());
    ASSERT_TRUE(store.ok()) << store.status();
    absl::StatusOr<core::ClusterState> recovered = (*store)->Load();
    ASSERT_TRUE(recovered.ok()) << recovered.status();
    aside_ = (*store)->aside();
    metrics_ = std::make_unique<CoordinatorMetrics>();
    CoreLoopOptions options;
    options.core.lease = absl::Hours(1);
    options.checkpoint_root = "/checkpoints";
    loop_ = std::make_unique<CoreLoop>(options, *std::move(store), *std::move(recovered), metrics_.get());
    loop_->Start();
    auto server = GrpcServer::Start({.listen = "127.0.0.1:0"}, loop_.get(), metrics_.get());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel_ = grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                         grpc::InsecureChannelCredentials(), arguments);
    jobs_ = v1::JobService::NewStub(channel_);
    checkpoints_ = v1::CheckpointService::NewStub(channel_);
    workers_ = v1::WorkerService::NewStub(channel_);
  }
  void Stop() {
    agent_.reset();
    if (server_ != nullptr) server_->Stop(absl::Milliseconds(50));
    server_.reset();
    loop_.reset();
  }

  template <typename Stub, typename Request, typename Response>
  grpc::Status Call(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    return (stub.*method)(&context, request, response);
  }

  static v1::JobSpec Spec(const std::string& name, int ranks = 1) {
    v1::JobSpec spec;
    spec.set_name(name);
    spec.mutable_task()->set_name("digits_mlp");
    spec.mutable_resources()->set_ranks(ranks);
    spec.set_runner_json(R"({"steps": 400, "optim": {"type": "sgd"}})");
    return spec;
  }
  grpc::Status TrySubmit(const v1::JobSpec& spec, v1::SubmitJobResponse* response) {
    v1::SubmitJobRequest request;
    *request.mutable_spec() = spec;
    request.set_request_key(absl::StrCat("key-", ++keys_));
    return Call(*jobs_, &v1::JobService::Stub::SubmitJob, request, response);
  }
  std::string Submit(const v1::JobSpec& spec) {
    v1::SubmitJobResponse response;
    const grpc::Status status = TrySubmit(spec, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.job();
  }
  v1::JobVerbRequest Verb(const std::string& job, const std::string& key) {
    v1::JobVerbRequest request;
    request.set_job(job);
    request.set_request_key(key);
    return request;
  }
  std::string Scrape() { return prometheus::TextSerializer().Serialize(metrics_->registry()->Collect()); }

  // ---- one agent with one rank ----
  struct Agent {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<v1::AgentMessage, v1::CoordinatorMessage>> stream;
    ~Agent() {
      if (stream != nullptr) context.TryCancel();
      v1::CoordinatorMessage rest;
      while (stream != nullptr && stream->Read(&rest)) {
      }
      if (stream != nullptr) stream->Finish();
    }
    // The next message that `wanted` takes.
    template <typename Wanted>
    v1::CoordinatorMessage Await(Wanted wanted) {
      v1::CoordinatorMessage message;
      while (stream->Read(&message)) {
        if (wanted(message)) return message;
      }
      ADD_FAILURE() << "the coordinator ended the session";
      return {};
    }
  };
  void Connect(const v1::Register& registration) {
    agent_ = std::make_unique<Agent>();
    agent_->context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(15));
    agent_->stream = v1::AgentService::NewStub(channel_)->Session(&agent_->context);
    v1::AgentMessage hello;
    *hello.mutable_register_() = registration;
    ASSERT_TRUE(agent_->stream->Write(hello));
  }
  void Connect() {
    v1::Register registration;
    registration.set_worker("w1");
    registration.set_slots(4);
    registration.set_protocol(kProtocolVersion);
    registration.set_instance("process-1");
    Connect(registration);
    agent_->Await([](const auto& message) { return message.has_registered(); });
    v1::AgentMessage beat;  // proves that it hears us: before, it gets no ranks
    beat.mutable_heartbeat()->set_number(1);
    ASSERT_TRUE(agent_->stream->Write(beat));
    agent_->Await([](const auto& message) { return message.has_heartbeat_ack(); });
  }
  v1::RankId Launched() {
    const v1::RankId id = agent_->Await([](const auto& message) { return message.has_launch(); }).launch().id();
    v1::AgentMessage message;
    *message.mutable_launched()->mutable_id() = id;
    agent_->stream->Write(message);
    return id;
  }
  v1::RankCallReply RankCall(const v1::RankId& id, v1::RankCall call) {
    v1::AgentMessage message;
    *call.mutable_id() = id;
    call.set_call(++calls_);
    *message.mutable_call() = call;
    agent_->stream->Write(message);
    return agent_
        ->Await([&](const v1::CoordinatorMessage& one) { return one.has_reply() && one.reply().call() == calls_; })
        .reply();
  }
  v1::RankCallReply Commit(const v1::RankId& id, int64_t step) {
    v1::RankCall shard;
    shard.mutable_commit_shard()->set_step(step);
    shard.mutable_commit_shard()->mutable_shard()->set_file("rank-0.safetensors");
    EXPECT_EQ(RankCall(id, shard).code(), 0);
    v1::RankCall manifest;
    manifest.mutable_commit_manifest()->set_step(step);
    manifest.mutable_commit_manifest()->set_bytes(100);
    return RankCall(id, manifest);
  }
  v1::RankId Train(const std::string& job) {
    v1::RankId id = Launched();
    EXPECT_EQ(id.job(), job);
    v1::RankCall join;
    join.mutable_join()->set_endpoint("127.0.0.1:29500");
    EXPECT_EQ(RankCall(id, join).code(), 0);
    return id;
  }

  std::filesystem::path directory_;
  std::vector<RecordAside> aside_;
  std::unique_ptr<CoordinatorMetrics> metrics_;
  std::unique_ptr<CoreLoop> loop_;
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
  std::unique_ptr<v1::CheckpointService::Stub> checkpoints_;
  std::unique_ptr<v1::WorkerService::Stub> workers_;
  std::unique_ptr<Agent> agent_;
  int keys_ = 0;
  uint64_t calls_ = 0;
};

}  // namespace athanor
