#include "common/service/message_text.h"

#include <gtest/gtest.h>

#include "athanor/base/utf8_text.h"
#include "athanor/v1/agent_service.pb.h"
#include "athanor/v1/job_service.pb.h"

namespace athanor {
namespace {

constexpr char kBad[] = "caf\xe9";

TEST(MessageText, NamesTheFirstFieldThatIsNoUtf8) {
  v1::SubmitJobRequest request;
  request.mutable_spec()->set_name("größe");
  EXPECT_EQ(FindInvalidText(request), "");
  (*request.mutable_spec()->mutable_env())["TOKEN"] = kBad;
  EXPECT_EQ(FindInvalidText(request), "spec.env[TOKEN]: byte 4");
  (*request.mutable_spec()->mutable_labels())[kBad] = "";
  EXPECT_EQ(FindInvalidText(request), "spec.labels, a name: byte 4");
  request.mutable_spec()->set_name(kBad);
  EXPECT_EQ(FindInvalidText(request), "spec.name: byte 4");
  v1::JobVerbRequest verb;
  verb.set_reason(kBad);
  EXPECT_EQ(FindInvalidText(verb), "reason: byte 4");
  v1::AgentMessage message;
  message.mutable_log_data()->set_data(kBad);
  EXPECT_EQ(FindInvalidText(message), "") << "bytes may be anything";
}

// What protobuf's reader refuses, the sender has mended.
TEST(MessageText, AMendedMessageCanBeRead) {
  v1::AgentMessage message;
  v1::RankProgress& progress = *message.mutable_heartbeat()->add_reports()->mutable_progress();
  progress.set_phase(kBad);
  (*progress.mutable_metrics())[kBad] = 1;
  (*progress.mutable_metrics())["loss"] = 2;
  v1::AgentMessage read;
  EXPECT_FALSE(read.ParseFromString(message.SerializeAsString()));
  MakeTextValid(&message);
  ASSERT_TRUE(read.ParseFromString(message.SerializeAsString()));
  EXPECT_EQ(read.heartbeat().reports(0).progress().phase(), ValidUtf8(kBad));
  EXPECT_EQ(read.heartbeat().reports(0).progress().metrics().at(ValidUtf8(kBad)), 1);
  EXPECT_EQ(read.heartbeat().reports(0).progress().metrics().at("loss"), 2);
}

}  // namespace
}  // namespace athanor
