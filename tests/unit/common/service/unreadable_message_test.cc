#include "common/service/unreadable_message.h"

#include <gmock/gmock.h>
#include <google/protobuf/stubs/logging.h>
#include <gtest/gtest.h>

#include <random>

#include "athanor/v1/agent_service.pb.h"

namespace athanor {
namespace {

using testing::HasSubstr;

std::string Why(const std::string& bytes) {
  return WhyUnreadable(*v1::AgentMessage::descriptor(), bytes);
}

v1::AgentMessage Beat() {
  v1::AgentMessage message;
  message.set_sequence(7);
  v1::RankReport& report = *message.mutable_heartbeat()->add_reports();
  report.mutable_id()->set_job("job-1");
  report.mutable_progress()->set_phase("training");
  return message;
}

TEST(UnreadableMessage, NamesFieldAndByte) {
  EXPECT_EQ(Why(Beat().SerializeAsString()), "");
  v1::AgentMessage message = Beat();
  message.mutable_heartbeat()->mutable_reports(0)->mutable_id()->set_job("jo\xff");
  EXPECT_EQ(Why(message.SerializeAsString()), "heartbeat.reports.id.job: byte 13: not UTF-8");
  EXPECT_EQ(Why(std::string("\x22\x7f\x01", 3)), "launched: byte 1: 127 bytes announced, 1 there");
  EXPECT_EQ(Why("\x08"), "sequence: byte 1: its value is cut or of no type");
  EXPECT_EQ(Why(std::string("\0", 1)), "byte 1: no field begins here");
  EXPECT_THAT(Why("\xff\xff\xff\xff\xff\xff"), HasSubstr("byte 1"));
}

// It finds something exactly where protobuf refuses.
TEST(UnreadableMessage, AgreesWithTheParser) {
  const google::protobuf::LogSilencer quiet;
  std::mt19937 random(7);
  const std::string good = Beat().SerializeAsString();
  int refused = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = good;
    for (int changes = 1 + static_cast<int>(random() % 3); changes > 0; --changes)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    v1::AgentMessage message;
    const bool readable = message.ParseFromString(bytes);
    refused += readable ? 0 : 1;
    EXPECT_EQ(Why(bytes).empty(), readable) << testing::PrintToString(bytes) << ": " << Why(bytes);
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace athanor
