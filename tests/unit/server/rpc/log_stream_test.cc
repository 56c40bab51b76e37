// Readers of logs over gRPC; the test plays the agent that holds the logs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/server/rpc/coordinator_door.h"

namespace athanor {
namespace {

class LogStreamTest : public CoordinatorDoor {
 protected:
  struct Reader {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::LogChunk>> stream;
    ~Reader() {
      context.TryCancel();
      v1::LogChunk rest;
      while (stream->Read(&rest)) {
      }
      stream->Finish();
    }
  };

  std::unique_ptr<Reader> Read(const std::string& job, bool follow) {
    auto reader = std::make_unique<Reader>();
    reader->context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    v1::ReadLogsRequest request;
    request.set_job(job);
    request.set_rank(-1);
    request.set_follow(follow);
    reader->stream = jobs_->ReadLogs(&reader->context, request);
    return reader;
  }

  // Answers the next read that is no follower's, or is one; the others wait for output.
  void AnswerNext(bool follow, const std::string& text) {
    const v1::CoordinatorMessage asked = agent_->Await(
        [&](const auto& message) { return message.has_read_log() && message.read_log().follow() == follow; });
    v1::AgentMessage answer;
    answer.mutable_log_data()->set_stream(asked.read_log().stream());
    answer.mutable_log_data()->set_data(text);
    answer.mutable_log_data()->set_next_offset(asked.read_log().offset() + static_cast<int64_t>(text.size()));
    ASSERT_TRUE(agent_->stream->Write(answer));
  }
};

TEST_F(LogStreamTest, IdleFollowersDoNotLockOthersOut) {
  Connect();
  const std::string job = Submit(Spec("digits"));
  Train(job);
  std::vector<std::unique_ptr<Reader>> idle;
  for (int i = 0; i < 300; ++i) {
    idle.push_back(Read(job, /*follow=*/true));
    const v1::CoordinatorMessage asked = agent_->Await([](const auto& message) { return message.has_read_log(); });
    EXPECT_TRUE(asked.read_log().follow()) << "follower " << i << " is served";
  }
  const auto reader = Read(job, /*follow=*/false);
  AnswerNext(/*follow=*/false, "for who reads\n");
  v1::LogChunk chunk;
  ASSERT_TRUE(reader->stream->Read(&chunk)) << "beside 300 idle followers";
  EXPECT_EQ(chunk.data(), "for who reads\n");
  const auto late = Read(job, /*follow=*/true);
  AnswerNext(/*follow=*/true, "for who follows\n");
  ASSERT_TRUE(late->stream->Read(&chunk));
  EXPECT_EQ(chunk.data(), "for who follows\n");
}

}  // namespace
}  // namespace athanor
