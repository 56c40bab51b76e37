// The agent's door for its ranks, spoken to over its Unix socket.
#include "worker/agent/rank_server.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"

namespace athanor::agent {
namespace {

TEST(RankServer, ARequestThatCannotBeReadIsAnInvalidArgument) {
  const auto folder = std::filesystem::temp_directory_path() / absl::StrCat("rank-server-", getpid());
  std::filesystem::create_directories(folder);
  auto server = RankServer::Open(folder.string(), {}, {});
  ASSERT_TRUE(server.ok()) << server.status();
  grpc::GenericStub stub(
      grpc::CreateChannel(absl::StrCat("unix:", (*server)->socket_path()), grpc::InsecureChannelCredentials()));
  for (const char* method : {"Call", "Report", "Control"}) {
    grpc::Slice slice("\xff\xff\xff");
    grpc::ByteBuffer request(&slice, 1), response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(15));
    grpc::CompletionQueue queue;
    auto call = stub.PrepareUnaryCall(&context, absl::StrCat("/athanor.v1.TrainerService/", method), request, &queue);
    call->StartCall();
    grpc::Status status;
    void* tag = nullptr;
    bool ok = false;
    call->Finish(&response, &status, &tag);
    ASSERT_TRUE(queue.Next(&tag, &ok));
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << method << ": " << status.error_message();
    EXPECT_THAT(status.error_message(),
                testing::AllOf(testing::HasSubstr(method), testing::HasSubstr("cannot be read")));
  }
  server->reset();
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace athanor::agent
