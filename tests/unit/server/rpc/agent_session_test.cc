// An agent's session as bytes on the wire.
#include <gmock/gmock.h>
#include <google/protobuf/empty.pb.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include "tests/unit/server/rpc/coordinator_door.h"

namespace athanor {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;

class AgentSession : public CoordinatorDoor {
 protected:
  static grpc::ByteBuffer Bytes(const std::string& text) {
    grpc::Slice slice(text);
    return {&slice, 1};
  }
  // Sends each message and returns how the session ended.
  grpc::Status Say(const std::vector<std::string>& messages) {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(15));
    grpc::CompletionQueue queue;
    void* tag = nullptr;
    bool ok = false;
    const auto await = [&] { return queue.Next(&tag, &ok) && ok; };
    auto call = stub.PrepareCall(&context, "/athanor.v1.AgentService/Session", &queue);
    call->StartCall(&tag);
    EXPECT_TRUE(await());
    for (const std::string& message : messages) {
      call->Write(Bytes(message), &tag);
      EXPECT_TRUE(await());
      if (&message != &messages.front()) continue;
      grpc::ByteBuffer answer;  // to the registration
      call->Read(&answer, &tag);
      EXPECT_TRUE(await());
    }
    grpc::Status status;
    call->Finish(&status, &tag);
    EXPECT_TRUE(await());
    return status;
  }
  static std::string Registration(const std::string& worker) {
    v1::AgentMessage message;
    message.mutable_register_()->set_worker(worker);
    message.mutable_register_()->set_slots(1);
    message.mutable_register_()->set_protocol(kProtocolVersion);
    message.mutable_register_()->set_instance("process-1");
    return message.SerializeAsString();
  }
  std::vector<std::string> Events(const std::string& job, const std::string& type) {
    v1::ListEventsRequest request;
    request.set_job(job);
    v1::ListEventsResponse response;
    EXPECT_TRUE(Call(*jobs_, &v1::JobService::Stub::ListEvents, request, &response).ok());
    std::vector<std::string> texts;
    for (const v1::JobEvent& event : response.events()) {
      if (event.type() == type) texts.push_back(event.message());
    }
    return texts;
  }
};

TEST_F(AgentSession, AMessageThatCannotBeReadIsNamed) {
  const grpc::Status status = Say({Registration("w9"), std::string("\x22\x7f\x01", 3)});
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(),
            "message 2 of the session (3 bytes) cannot be read: launched: byte 1: 127 bytes announced, 1 there");
}

TEST_F(AgentSession, JobsOfTheAgentAreTold) {
  Connect();
  const std::string job = Submit(Spec("digits"));
  const v1::RankId id = Train(job);
  v1::AgentMessage message;
  message.set_sequence(9);
  *message.mutable_exited()->mutable_id() = id;
  message.mutable_exited()->mutable_cause()->set_detail("caf\xe9");
  EXPECT_TRUE(agent_->stream->Write(message));
  v1::CoordinatorMessage last;
  while (agent_->stream->Read(&last)) {
  }
  const grpc::Status status = agent_->stream->Finish();
  agent_->stream.reset();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("exited.cause.detail"));
  // The event is stored beside the end of the stream, not before it.
  std::vector<std::string> told;
  for (const absl::Time deadline = absl::Now() + absl::Seconds(15); told.empty() && absl::Now() < deadline;) {
    told = Events(job, "AgentMessageRefused");
  }
  EXPECT_THAT(
      told, Contains(AllOf(HasSubstr("agent w1: message "), HasSubstr("exited.cause.detail"), HasSubstr("not UTF-8"))));
}

}  // namespace
}  // namespace athanor
